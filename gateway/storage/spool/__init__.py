"""What was received and what it closed, durable before it is acknowledged."""
