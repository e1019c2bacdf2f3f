"""The routes of REST, one module per concept."""
