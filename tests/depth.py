"""How much is tried: the same little with every test run, much that is new each time with `make test-deep`."""

import os

DEEP = os.environ.get("GATEWAY_HYPOTHESIS") == "deep"
SEED = int(os.environ.get("GATEWAY_SEED", "0"))
"""What generated cases begin from; 0 with every test run, drawn and printed by `make test-deep` and `test-fresh`."""


def deep(count: int, *, else_: int) -> int:
    """`count` in a deep run, `else_` with every test run."""
    return count if DEEP else else_
