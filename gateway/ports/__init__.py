"""The seams: what services ask of links, signals, sinks and the journal."""
