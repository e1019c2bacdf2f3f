"""Receives dispatch from the aggregator Leap: webhooks as hints, search as the source of truth."""
