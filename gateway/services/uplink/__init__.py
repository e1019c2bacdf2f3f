"""Delivers interval records to the sinks, and again where asked for."""
