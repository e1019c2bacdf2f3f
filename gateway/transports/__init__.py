"""Protocol transports shared by links, signals and sinks."""
