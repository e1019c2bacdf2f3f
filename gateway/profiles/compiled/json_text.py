"""JSON from devices: strict and fast, and once more with the numbers that JSON does not have.

Firmware writes NaN, Infinity and numbers of any length. A document is not thrown away because of one of them: it is
read with these as numbers, and whoever uses the value judges it.
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
    """A whole number; infinite where it has more digits than any number has."""
    return int(digits) if len(digits) <= DIGITS_MAX else float(digits)
