"""Where workers run: one module a platform, made by name from its options."""

from .registry import make_platform

__all__ = ["make_platform"]
