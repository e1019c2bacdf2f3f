"""Sends interval records to the Leap aggregator."""
