"""Batteries that speak JSON over HTTP."""
