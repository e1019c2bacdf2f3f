"""Parses the aggregator's answers with suspicion: ignores unknown fields and states, never guesses a missing value.

An upload is answered with a job's id. The list of uploads tells how a job stands, the job itself only its errors, and
the preview of its file both how it stands and what it holds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from gateway.sinks.leap.rows import CODES

_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
OTHER_CODE = "refused_by_receiver"
CODES_TOLD = frozenset(CODES) - {"REPEATED"} | {"UNCATEGORISED"}
COMPLETED, FAILED = "COMPLETED", "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class LineError:
    """An error of an upload. `line`: of the file as the receiver counts, None = it names none; `code`: as published, ""
    = none or one that we do not know."""

    line: int | None
    code: str

    @property
    def reason(self) -> str:
        """The code as the reason of a refusal; only known ones, so that reasons stay few."""
        return self.code.lower() or OTHER_CODE


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadEntry:
    """An upload in the list: the newest job of its file, and how that stands."""

    job_id: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The file of a job: how the job stands ("" = not told), and lines of the file; `whole`: all of them."""

    status: str
    lines: Sequence[str]
    whole: bool


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
    return _job_id(_document(body).get("job_id"))


def uploads_of(body: bytes) -> tuple[list[UploadEntry], str | None] | None:
    """A page of the list of uploads, and the next page's token. None if the body is no such answer."""
    answer = _document(body)
    if not isinstance(answer.get("uploads"), list):
        return None
    found: list[UploadEntry] = []
    for item in answer["uploads"]:
        if isinstance(item, dict):
            job_id, status = _job_id(item.get("last_job_id")), item.get("status")
            if job_id is not None and isinstance(status, str):
                found.append(UploadEntry(job_id=job_id, status=status))
    return found, _token(answer)


def errors_of(body: bytes) -> list[LineError] | None:
    """The errors of a job; one that the summary counts and the list lacks stands there without a line. None if the body
    is no such answer."""
    answer = _document(body)
    if "errors" not in answer and "error_summary" not in answer and "job_id" not in answer:
        return None
    found = [_line_error(item) for item in _list(answer, "errors")]
    more = _counted(_list(answer, "error_summary")) > len(found)
    return [*found, LineError(line=None, code="")] if more else found


def preview_of(body: bytes) -> Preview | None:
    """How a job stands and lines of its file. None if the body is no such answer."""
    answer = _document(body)
    status = answer.get("status")
    lines = [line.rstrip("\r\n") for line in _list(answer, "file_data") if isinstance(line, str)]
    if not isinstance(status, str) and not lines:
        return None
    whole = answer.get("is_limited") is False
    return Preview(status=status if isinstance(status, str) else "", lines=lines, whole=whole)


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
        else:
            found.append(entry)
    return found, unread, _token(answer)


def _document(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _list(answer: dict[str, Any], name: str) -> Sequence[Any]:
    found = answer.get(name)
    return found if isinstance(found, list) else []


def _token(answer: dict[str, Any]) -> str | None:
    token = answer.get("next_page_token")
    return token if isinstance(token, str) and token else None


def _job_id(value: object) -> str | None:
    return value if isinstance(value, str) and _JOB_ID.fullmatch(value) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _counted(summary: Sequence[Any]) -> int:
    return sum(_whole(item.get("count")) or 0 for item in summary if isinstance(item, dict))


def _line_error(item: object) -> LineError:
    """An error, in the documented shape or the older one of the operation's example (`errors`: texts, no code)."""
    if not isinstance(item, dict):
        return LineError(line=None, code="")
    return LineError(line=_whole(item.get("line")), code=known_code(item.get("code")))


def known_code(value: object) -> str:
    """A code that is published, else ""."""
    return value if isinstance(value, str) and value in CODES_TOLD else ""


def _time_ms(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return round(moment.timestamp() * 1000) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _missing(item: dict[str, Any]) -> MissingReply | None:
    """An entry. The schema demands none of its fields; without a meter and two ends there is nothing to send."""
    meter_id, status, data_type = item.get("meter_id"), item.get("status"), item.get("data_type")
    start_ms, end_ms = _time_ms(item.get("start_date_time_utc")), _time_ms(item.get("end_date_time_utc"))
    if not isinstance(meter_id, str) or start_ms is None or end_ms is None or end_ms <= start_ms:
        return None
    return MissingReply(
        meter_id=meter_id.lower(),
        start_ms=start_ms,
        end_ms=end_ms,
        status=status if isinstance(status, str) else "OPEN",
        data_type=data_type if isinstance(data_type, str) else "",
        deadline_ms=_time_ms(item.get("submission_deadline_date_time_utc")),
    )
