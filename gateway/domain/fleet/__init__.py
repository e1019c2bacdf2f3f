"""Every device by slot: its nameplate, readings and control state."""
