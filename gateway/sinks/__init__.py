"""Telemetry upstream, passive."""
