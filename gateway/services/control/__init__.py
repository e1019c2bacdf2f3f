"""The control loop and what it keeps: authority, writes, quarantine, maintenance."""
