"""What the grid asks, what was decided of it, and what each device made of it."""
