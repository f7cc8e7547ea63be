"""Keys, signatures and redaction."""
