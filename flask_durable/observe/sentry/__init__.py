"""Errors, traces and check-ins for Sentry."""
