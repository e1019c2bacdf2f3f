"""What every service runs on: restarts, the guarded clock, the lag of the event loop."""
