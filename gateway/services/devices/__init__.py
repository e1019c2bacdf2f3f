"""Devices by connection: enrollment rows, polled sessions, commands on their way."""
