"""A profile at work: decoders, encoders, sequences."""
