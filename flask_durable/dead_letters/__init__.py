"""Dead letters as the application sees them."""

from .dead_letters import DeadLetters
from .model import Handled
from .selection import Which

__all__ = ["DeadLetters", "Handled", "Which"]
