"""Every HTTP route of the extension."""
