"""What the journal is told and what it remembers, as values."""
