"""How many workers a pool should have. Nothing here does I/O."""
