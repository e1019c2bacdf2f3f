"""Adapters towards the batteries."""
