"""Forwards: functions that deliver events to other event APIs and webhooks."""
