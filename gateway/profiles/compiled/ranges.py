"""Ranges of values. A value beyond the edge by no more than single precision rounds is the edge itself: firmware that
divides or multiplies says 100.0000076 % for full."""

import math

import numpy as np

ROUNDING = float(np.finfo(np.float32).eps)
"""Of the larger edge."""


def within(value: float, low: float, high: float) -> float | None:
    """The value, the edge that it means, or None where it is outside."""
    if low <= value <= high:
        return value
    slack = ROUNDING * max((abs(edge) for edge in (low, high) if math.isfinite(edge)), default=0.0)
    if low - slack <= value < low:
        return low
    return high if high < value <= high + slack else None
