"""Dispatch from the grid."""
