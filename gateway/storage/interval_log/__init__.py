"""Stores every interval record in one total order; readers follow it by cursors."""
