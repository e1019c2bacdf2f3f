"""The device language: what a product says and how it is told."""
