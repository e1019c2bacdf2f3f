"""Moments as peers write them."""

import re
from datetime import datetime

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*")


def rfc3339(found: object) -> datetime | None:
    """The moment that a text says, with its offset; None = it says none."""
    if not isinstance(found, str) or _RFC3339.fullmatch(found) is None:
        return None
    try:
        moment = datetime.fromisoformat(found)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment
