"""Exports metrics from plain counters; formats structured logs."""
