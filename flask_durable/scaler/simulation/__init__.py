"""A queue, a pool and a policy in simulated time, to compare policies."""
