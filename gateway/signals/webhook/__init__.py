"""Dispatch by webhook from peers that a file describes: where each field stands, and how bodies are signed."""
