"""The event model, schemas by name, and the HTTP endpoint that accepts events."""
