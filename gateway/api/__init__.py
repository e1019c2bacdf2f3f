"""The HTTP interface: REST, metrics, health."""
