"""Introspectors for queues of other libraries: one module a library, chosen by name."""

from .registry import make_introspector

__all__ = ["make_introspector"]
