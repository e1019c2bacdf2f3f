"""Strict settings, composed from the settings each adapter owns."""
