"""Queues behind one broker: Redis Streams or SQS, with the same semantics."""
