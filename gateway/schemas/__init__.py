"""Bodies on the wire that more than one door uses."""
