"""JSON from devices: strict and fast, and once more with the numbers that JSON does not have.

Firmware writes NaN, Infinity and numbers of any length. A document is not refused because of one of them: they
are read as numbers, and the range of each point decides.
"""

import json

DIGITS_MAX = 400


def tolerant_json(data: bytes) -> object:
    """The document in `data`, in which numbers may be NaN, infinite or of any length. Slow: for what a strict reader
    has refused. Raises ValueError."""
    try:
        found: object = json.loads(data.decode(), parse_int=_whole)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return found


def _whole(digits: str) -> int | float:
    """A whole number; infinite beyond `DIGITS_MAX` digits."""
    return int(digits) if len(digits) <= DIGITS_MAX else float(digits)
