"""Interval records to the Leap aggregator."""
