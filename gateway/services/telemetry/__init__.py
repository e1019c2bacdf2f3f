"""Readings in, intervals recorded, looked up and accounted for."""
