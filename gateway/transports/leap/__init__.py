"""The HTTP interface of the aggregator Leap, for whatever the gateway asks of it."""
