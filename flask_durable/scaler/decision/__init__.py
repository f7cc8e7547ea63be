"""The number of workers that a queue needs, decided from values alone."""
