"""What a device may do now: the one place that narrows power."""
