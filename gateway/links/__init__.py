"""Towards the batteries."""
