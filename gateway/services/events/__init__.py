"""Events and exclusions come in here; their delivery records and reports leave."""
