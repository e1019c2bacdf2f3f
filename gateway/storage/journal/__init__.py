"""Durable memory of decisions."""
