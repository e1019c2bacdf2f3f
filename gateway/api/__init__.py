"""The HTTP surface: REST, metrics, health."""
