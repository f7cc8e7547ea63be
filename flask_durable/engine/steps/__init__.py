"""The operations that a function's body is made of, one a module."""
