"""Counts and times of runs, kept on the state server."""
