"""Batteries that speak Modbus TCP."""
