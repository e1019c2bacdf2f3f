"""What the schema alone cannot see in a profile."""
