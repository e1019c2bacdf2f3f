"""Durations as people write them: a number of seconds, or a number with a unit."""

import re

UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
PATTERN = r"^\s*\d+(\.\d+)?\s*(ms|s|min|h|d)\s*$"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)")
_MEANT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)
_WORDS = {
    "ms": ("milli", "msec", "millisecond", "milliseconds"),
    "s": ("sec", "secs", "second", "seconds"),
    "min": ("m", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
}


def duration_s(value: object) -> object:
    """`30s` as seconds; anything else is left for the model to refuse."""
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        if found:
            return float(found.group(1)) * UNITS[found.group(2)]
    return value


def hint(text: str) -> str:
    """How to write what `text` may mean."""
    found = _MEANT.fullmatch(text.strip())
    if found:
        number, word = found.groups()
        for unit, words in _WORDS.items():
            if word.lower() in (unit, *words):
                return f"not a duration; write {number}{unit}"
    return "not a duration; write a number of seconds, or one with a unit: 500ms, 30s, 5min, 24h, 7d"
