"""Checks of a profile that go beyond its schema."""
