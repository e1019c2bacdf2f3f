"""The envelope of every device: the one place that narrows power."""
