"""Parses the aggregator's answers with suspicion: ignores unknown fields and states, never guesses a missing value."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from gateway.sinks.leap.rows import CODES, FIRST_ROW_LINE

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
OTHER_CODE = "refused_by_receiver"
DONE = ("COMPLETED", "FAILED")
MISSING_STATUSES = ("OPEN", "PENDING", "PROCESSING")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReply:
    """The state of an upload. `refused`: reason by line of the file; `unplaced`: some error names no line of it."""

    status: str
    refused: dict[int, str]
    unplaced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingReply:
    """An interval of a meter that the aggregator has no data for, ends in epoch ms. `deadline_ms`: None = not given."""

    meter_id: str
    start_ms: int
    end_ms: int
    status: str
    data_type: str
    deadline_ms: int | None


def job_id_of(body: bytes) -> str | None:
    """The id of the job that an upload became, None if the answer has none."""
    found = _document(body).get("job_id")
    return found if isinstance(found, str) and _JOB_ID.fullmatch(found) else None


def job_of(body: bytes, *, rows: int) -> JobReply | None:
    """The state of the job of a file with `rows` rows, None if the body is no such answer."""
    answer = _document(body)
    status = answer.get("status")
    if not isinstance(status, str):
        return None
    errors, summary = _list(answer, "errors"), _list(answer, "error_summary")
    if status not in DONE:
        return JobReply(status=status, refused={}, unplaced=False)
    refused: dict[int, str] = {}
    unplaced = _counted(summary) > len(errors)
    for error in errors:
        line = _whole(error.get("line")) if isinstance(error, dict) else None
        if line is None or not FIRST_ROW_LINE <= line < FIRST_ROW_LINE + rows:
            unplaced = True
        else:
            refused.setdefault(line, _reason(error.get("code")))
    return JobReply(status=status, refused=refused, unplaced=unplaced)


def missing_of(body: bytes) -> tuple[list[MissingReply], int, str | None] | None:
    """A page of intervals that wait for data, how many entries could not be read, and the next page's token. None if
    the body is no such answer."""
    answer = _document(body)
    if not isinstance(answer.get("missing_intervals"), list):
        return None
    found: list[MissingReply] = []
    unread = 0
    for item in answer["missing_intervals"]:
        entry = _missing(item) if isinstance(item, dict) else None
        if entry is None:
            unread += 1
        elif entry.status in MISSING_STATUSES:
            found.append(entry)
    token = answer.get("next_page_token")
    return found, unread, token if isinstance(token, str) and token else None


def _document(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _list(answer: dict[str, Any], name: str) -> Sequence[Any]:
    found = answer.get(name)
    return found if isinstance(found, list) else []


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _counted(summary: Sequence[Any]) -> int:
    return sum(_whole(item.get("count")) or 0 for item in summary if isinstance(item, dict))


def _reason(code: object) -> str:
    """A code as the reason of a refusal; only known ones, so that reasons stay few."""
    return code.lower() if isinstance(code, str) and code in CODES else OTHER_CODE


def _time_ms(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return round(moment.timestamp() * 1000) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _missing(item: dict[str, Any]) -> MissingReply | None:
    meter_id, status, data_type = item.get("meter_id"), item.get("status"), item.get("data_type")
    start_ms, end_ms = _time_ms(item.get("start_date_time_utc")), _time_ms(item.get("end_date_time_utc"))
    if not isinstance(meter_id, str) or not isinstance(status, str) or start_ms is None or end_ms is None:
        return None
    return MissingReply(
        meter_id=meter_id,
        start_ms=start_ms,
        end_ms=end_ms,
        status=status,
        data_type=data_type if isinstance(data_type, str) else "",
        deadline_ms=_time_ms(item.get("submission_deadline_date_time_utc")),
    )
