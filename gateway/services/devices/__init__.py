"""Devices: import rows and the registry, polled sessions, commands on their way."""
