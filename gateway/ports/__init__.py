"""Protocols that services use links, signals, sinks and the journal by."""
