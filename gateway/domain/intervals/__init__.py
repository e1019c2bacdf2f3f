"""Energy samples in, clock-aligned energy intervals out."""
