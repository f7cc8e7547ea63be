"""Seeing what runs do."""
