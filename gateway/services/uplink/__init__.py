"""Interval records to the sinks, once and once more."""
