"""Worker processes: Dramatiq's threads, the router, leases, the sweeper, the drain."""
