"""Our simulated products, read and steered by client libraries of others, each in a process of its own."""
