"""Measures the budgets of the engine, see README.md: ``python -m benchmarks``."""
