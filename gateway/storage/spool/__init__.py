"""Received telemetry and the interval records it causes, durable before the gateway acknowledges it."""
