"""Compiled profiles: decoders, encoders, sequences."""
