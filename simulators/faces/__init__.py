"""Products as the network sees them: one file per protocol, each on the shared LFP physics."""
