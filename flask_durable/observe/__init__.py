"""Observability: logs, metrics, traces and error reports of runs."""
