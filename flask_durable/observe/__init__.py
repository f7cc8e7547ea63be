"""Observability: logs, metrics, traces and error reports of what runs do."""
