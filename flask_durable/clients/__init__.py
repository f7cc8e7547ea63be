"""Clients of other people's HTTP and AWS APIs."""
