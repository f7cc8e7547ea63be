"""Where durations are measured: one module a source, made by name from its options."""

from .chain import SourceChain
from .registry import make_source

__all__ = ["make_source", "SourceChain"]
