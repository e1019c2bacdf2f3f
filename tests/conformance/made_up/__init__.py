"""Products that the gateway does not ship: each a profile and a simulator, and no line in the gateway."""
