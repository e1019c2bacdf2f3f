"""What may be written in a profile."""
