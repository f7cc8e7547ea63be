"""Sources of measured durations: one module a source, chosen by name in the options."""

from .chain import SourceChain
from .registry import make_source

__all__ = ["make_source", "SourceChain"]
