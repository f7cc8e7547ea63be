"""Connections to the state server, and the scripts it runs."""
