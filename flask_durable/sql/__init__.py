"""The application's own database: its tables for steps and for events.

It needs SQLAlchemy, which only this folder and what uses it imports.
"""

from .tables import tables as tables
from .tables import use_engine as use_engine
