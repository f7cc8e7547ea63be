"""Events become runs and runs become results: router, executor, leases, sweeper.

Nothing here knows Flask, Dramatiq or boto3.
"""
