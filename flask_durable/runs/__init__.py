"""Runs as the application sees and changes them."""

from .runs import Runs

__all__ = ["Runs"]
