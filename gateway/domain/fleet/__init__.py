"""Every device by slot: who it is, what it says, what it was told."""
