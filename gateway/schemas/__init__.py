"""Bodies on the wire that more than one interface uses."""
