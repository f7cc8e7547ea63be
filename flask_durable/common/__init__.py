"""Small tools that know nothing of durable functions."""
