"""The composition root: settings become an object graph, started and stopped in order."""
