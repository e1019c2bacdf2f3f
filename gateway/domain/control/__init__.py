"""Turns the targets of running events into setpoints and commands for each device."""
