"""How much is tried: little with every test run, much with `make test-deep`."""

import os

DEEP = os.environ.get("GATEWAY_HYPOTHESIS") == "deep"


def deep(count: int, *, else_: int) -> int:
    """`count` in a deep run, `else_` with every test run."""
    return count if DEEP else else_
