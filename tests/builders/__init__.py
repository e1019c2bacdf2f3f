"""Values for tests: devices, batches, profiles, fakes."""
