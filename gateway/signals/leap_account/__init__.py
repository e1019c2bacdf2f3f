"""What the account at the aggregator Leap holds: meters, who takes part, nominations. The outbox changes it."""
