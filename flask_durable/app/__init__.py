"""The services of one app in one process."""
