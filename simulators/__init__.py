"""Simulated homes, their firmware and the central platform; never part of the daemon, never imports it."""
