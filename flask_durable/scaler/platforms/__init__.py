"""Platforms that run workers: one module a platform, chosen by name in the options."""

from .registry import make_platform

__all__ = ["make_platform"]
