"""Dead letters as the application sees them."""

from .dead_letters import DeadLetters
from .model import RedriveResult
from .selection import DeadLetterFilter

__all__ = ["DeadLetters", "RedriveResult", "DeadLetterFilter"]
