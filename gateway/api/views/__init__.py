"""Bodies for REST and the platform, made from the state of services."""
