"""Durable functions: how they are declared, checked, matched with events and found."""
