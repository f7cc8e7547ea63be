"""Looks into queues of other libraries: one module a library, made by name."""

from .registry import make_introspector

__all__ = ["make_introspector"]
