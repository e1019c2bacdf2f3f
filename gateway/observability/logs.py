"""Structured logs: a constant sentence plus fields, as JSON lines or for people."""

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

VALUE_MAX = 500


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _short(value: Any) -> Any:
    if isinstance(value, (int, float, bool)) or value is None:
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= VALUE_MAX else text[:VALUE_MAX] + "..."


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: _short(value) for key, value in _fields(record).items()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=repr)


class HumanLines(logging.Formatter):
    """For a person at a terminal: clock time, level, sentence, fields. Foreign text is quoted."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={_short(value)!r}" for key, value in _fields(record).items())
        head = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower():7}"
        line = f"{head} {record.getMessage()}  {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def set_up_logging(*, form: str, level: str, converter: Callable[..., Any]) -> None:
    """Log to standard error. `converter` turns epoch seconds into UTC time (see `gateway/clock.py`)."""
    human = form == "human" or (form == "auto" and sys.stderr.isatty())
    formatter: logging.Formatter = HumanLines() if human else JsonLines()
    formatter.converter = converter
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
