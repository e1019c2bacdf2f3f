"""Ranges of values. A value beyond the edge by no more than single precision rounds is the edge itself: firmware that
divides or multiplies says 100.0000076 % for full."""

import math

import numpy as np

ROUNDING = float(np.finfo(np.float32).eps)
"""Of the edge; at one near 0 of the other, up to `NEAR_MOST`: a percentage may have been taken from 100."""
NEAR_MOST = 1_000.0


def within(value: float, low: float, high: float) -> float | None:
    """The value, the edge that it means, or None where it is outside."""
    if low <= value <= high:
        return value
    if low - _slack(low, high) <= value < low:
        return low
    return high if high < value <= high + _slack(high, low) else None


def _slack(edge: float, other: float) -> float:
    near = min(abs(other), NEAR_MOST) if math.isfinite(other) else 0.0
    return ROUNDING * max(abs(edge), near) if math.isfinite(edge) else 0.0
