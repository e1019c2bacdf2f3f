"""Metrics from plain counters, structured logs."""
