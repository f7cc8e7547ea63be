"""The servers and processes of ``flask durable dev``."""
