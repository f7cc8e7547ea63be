"""Metrics of runs, steps and queues."""
