"""Every ``DURABLE_*`` key."""
