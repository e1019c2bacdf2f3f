"""Worlds for tests: a fleet under control, brokers, peers on sockets."""
