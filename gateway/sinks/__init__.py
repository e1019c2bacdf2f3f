"""Adapters that send telemetry upstream: one batch, one answer."""
