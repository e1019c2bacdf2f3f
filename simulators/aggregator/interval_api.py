"""The interval-data operations: upload, upload list, job, preview, presigned URL, missing intervals.

The list tells the status of a job and the job itself only its errors. Fields and parameters that the service does not
know are ignored; `Call.unknown` names them for a test.

Not public [?]: what answers a wrong Content-Type, a Content-Encoding or a file that is too large (none of 413, 415 is
declared; here 400), how `file_path` compares (here: with the path as uploaded or as it is now), how long a presigned
URL holds (here: until its file moves).
"""

import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import orjson

from simulators.aggregator import contract
from simulators.aggregator.contract import Body, OffContract
from simulators.aggregator.intervals import ENDED, Intervals, Job, Schema, Status, Upload
from simulators.aggregator.missing import WINDOW_NAMES, Filter, missing_intervals
from simulators.aggregator.paging import Key, Tokens
from simulators.aggregator.permissions import Permission
from simulators.aggregator.refusal import Refused
from simulators.aggregator.service import Call, Reply, Route, Service, canonical, media_type
from simulators.aggregator.spoil import old_error_items
from simulators.aggregator.switches import Mischief, Operation, Order
from simulators.aggregator.times import time_ms, time_text

UPLOADS_PATH = "/v1.1/jobs/interval-data-uploads"
UPLOADS_PAGE = 50
MISSING_PAGE = 500


ROUTES = (
    ("POST", "/v1.1/interval-data", Operation.UPLOAD, Permission.UPLOAD_INTERVALS),
    ("GET", UPLOADS_PATH, Operation.UPLOADS, Permission.READ_UPLOADS),
    ("GET", UPLOADS_PATH + "/{job_id}", Operation.JOB, Permission.READ_UPLOADS),
    ("GET", UPLOADS_PATH + "/file-preview/{job_id}", Operation.PREVIEW, Permission.READ_UPLOADS),
    ("GET", UPLOADS_PATH + "/presigned-url/{job_id}", Operation.PRESIGNED, Permission.READ_UPLOADS),
    ("POST", "/v1.1/missing-interval-data/search", Operation.MISSING, Permission.SEARCH_MISSING),
)


def envelope(refused: Refused) -> Reply:
    """An error of the interval-data service."""
    body: dict[str, Any] = {"title": refused.title, "status": refused.status}
    if refused.details:
        body["details"] = refused.details
    return Reply(status=refused.status, json=body, body=Body.INTERVALS_ERROR)


class IntervalApi:
    """Answers requests from the state; knows no HTTP beyond names and numbers."""

    def __init__(
        self, intervals: Intervals, mischief: Mischief, schemas: tuple[Schema, ...], url: Callable[[], str]
    ) -> None:
        self._intervals = intervals
        self._mischief = mischief
        self._schemas = schemas
        self._url = url
        self._tokens = Tokens()
        self._presigned: dict[str, tuple[Upload, str]] = {}

    def service(self) -> Service:
        """What the server mounts."""
        routes = tuple(
            Route(
                method=method,
                path=path,
                operation=operation,
                permission=permission,
                handler=partial(self.answer, operation),
            )
            for method, path, operation, permission in ROUTES
        )
        prefixes = ("/v1.1/interval-data", UPLOADS_PATH, "/v1.1/missing-interval-data")
        return Service(name="interval data", prefixes=prefixes, routes=routes, envelope=envelope)

    def answer(self, operation: Operation, call: Call) -> Reply:
        """The reply to a request; Refused for one that breaks a rule."""
        self._intervals.advance_all()
        handlers = {
            Operation.UPLOAD: self._upload,
            Operation.UPLOADS: self._uploads,
            Operation.JOB: self._job,
            Operation.PREVIEW: self._preview,
            Operation.PRESIGNED: self._presigned_url,
            Operation.MISSING: self._missing,
        }
        return handlers[operation](call)

    def presigned(self, token: str) -> bytes:
        """The file behind a presigned URL."""
        upload, path = self._presigned.get(token, (None, ""))
        if upload is None or upload.current_path != path:
            raise Refused(403, "URL is not valid")
        return upload.files.read(path)

    def _upload(self, call: Call) -> Reply:
        query = _query(call, Body.UPLOAD_QUERY)
        if media_type(call) != "text/csv":
            raise Refused(400, "Content-Type must be text/csv", content_type=call.headers.get("Content-Type"))
        if call.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(400, "Content-Encoding is not supported")
        limit = self._intervals.points.upload_bytes_max
        if limit is not None and len(call.body) > limit:
            raise Refused(400, "file is too large", bytes=len(call.body), limit=limit)
        upload = self._intervals.receive(call.body, Schema(query["schema"]))
        return Reply(json={"job_id": upload.jobs[0].job_id}, body=Body.UPLOAD_REPLY)

    def _uploads(self, call: Call) -> Reply:
        query = _query(call, Body.UPLOADS_QUERY)
        size = query.pop("page_size", UPLOADS_PAGE)
        token = query.pop("page_token", None)
        if token is None:  # whoever asks for the list, by whatever filter, looks at every job once
            for upload in self._intervals.uploads:
                self._intervals.look(upload)
        page, next_token = self._tokens.page(
            Operation.UPLOADS.name, canonical(query), token, self._room(size), self._matching(query)
        )
        entries = [_entry(upload) for upload in page]
        return Reply(json=self._paged("uploads", entries, next_token), body=Body.UPLOADS_REPLY)

    def _matching(self, query: dict[str, Any]) -> Iterator[tuple[Key, Upload]]:
        newest_first = self._intervals.points.order is Order.NEWEST_FIRST
        uploads = self._intervals.uploads
        first_ms = time_ms(query["from"]) if "from" in query else None
        last_ms = time_ms(query["to"]) if "to" in query else None
        for upload in reversed(uploads) if newest_first else list(uploads):
            if first_ms is not None and upload.uploaded_ms < first_ms:
                continue
            if last_ms is not None and upload.uploaded_ms > last_ms:
                continue
            if "status" in query and upload.status != query["status"]:
                continue
            if query.get("file_path", upload.current_path) not in (upload.uploaded_path, upload.current_path):
                continue
            yield (-upload.sequence if newest_first else upload.sequence,), upload

    def _job(self, call: Call) -> Reply:
        upload, job = self._found(call)
        self._intervals.look(upload)
        errors = job.errors[: self._intervals.points.errors_max]
        items = [
            {"line": error.line, "code": error.code, "message": error.message}
            | ({"column": error.column} if error.column is not None else {})
            for error in errors
        ]
        old = self._mischief.old_error_items
        reply: dict[str, Any] = {"job_id": job.job_id, "errors": old_error_items(items) if old else items}
        if job.status in ENDED:
            reply["error_summary"] = _summary(job)
        if job.error_csv_path is not None:
            reply["error_csv_file_path"] = job.error_csv_path
        return Reply(json=reply, body=Body.OLD_JOB_REPLY if old else Body.JOB_REPLY)

    def _preview(self, call: Call) -> Reply:
        upload, job = self._found(call)
        self._intervals.look(upload)
        lines = _file(upload).decode("utf-8", "replace").splitlines()
        shown = lines[: self._intervals.points.preview_lines]
        reply = {
            "file_data": shown,
            "job_id": job.job_id,
            "status": job.status.value,
            "created_at": time_text(job.created_ms),
            "updated_at": time_text(job.updated_ms),
            "is_limited": len(shown) < len(lines),
        }
        return Reply(json=reply, body=Body.PREVIEW_REPLY)

    def _presigned_url(self, call: Call) -> Reply:
        upload, _ = self._found(call)
        _file(upload)
        token = secrets.token_urlsafe(24)
        self._presigned[token] = (upload, upload.current_path)
        headers = {"Location": f"{self._url()}/presigned/{token}", "Cache-Control": "private, max-age=60"}
        return Reply(status=302, headers=headers)

    def _missing(self, call: Call) -> Reply:
        request = _json_body(call)
        size = int(request.pop("page_size", MISSING_PAGE))
        token = request.pop("page_token", None)
        try:
            wanted = Filter(request, self._intervals)
        except ValueError as error:
            raise Refused(400, "time cannot be read") from error
        any_window = self._mischief.outside_window
        entries = (
            ((entry.meter, entry.schema, entry.start_ms), taken)
            for entry in missing_intervals(self._intervals, self._schemas)
            if (taken := wanted.take(entry, any_window=any_window)) is not None
        )
        names = contract.properties(Body.MISSING_REQUEST) | set(WINDOW_NAMES[self._intervals.points.search_names])
        known = {key: value for key, value in request.items() if key in names}
        page, next_token = self._tokens.page(Operation.MISSING.name, canonical(known), token, self._room(size), entries)
        items = [entry.body(sparse=self._mischief.sparse_missing) for entry in page]
        return Reply(json=self._paged("missing_intervals", items, next_token), body=Body.MISSING_REPLY)

    def _found(self, call: Call) -> tuple[Upload, Job]:
        if not contract.UUID.fullmatch(call.ids["job_id"]):
            raise Refused(400, "job_id is not a UUID", job_id=call.ids["job_id"])
        found = self._intervals.find(call.ids["job_id"])
        if found is None:
            raise Refused(404, "job not found", job_id=call.ids["job_id"])
        return found

    def _room(self, size: int) -> int:
        """Entries for a page of `size`: one less where an unknown one is to be added."""
        return size - 1 if self._mischief.unknown_enums and size > 1 else size

    def _paged(self, name: str, entries: list[dict[str, Any]], next_token: str | None) -> dict[str, Any]:
        reply: dict[str, Any] = {name: entries}
        if next_token is not None or self._mischief.null_tokens:
            reply["next_page_token"] = next_token
        return reply


def _entry(upload: Upload) -> dict[str, Any]:
    job = upload.last_job
    entry = {
        "last_job_id": job.job_id,
        "uploaded_file_path": upload.uploaded_path,
        "current_file_path": upload.current_path,
        "uploaded_at_date_time": time_text(upload.uploaded_ms),
        "status": job.status.value,
    }
    if job.feedback_path is not None:
        entry["feedback_csv_file_path"] = job.feedback_path
    if job.status is Status.FAILED and job.error_csv_path is not None:
        entry["error_csv_file_path"] = job.error_csv_path
    return entry


def _summary(job: Job) -> list[dict[str, Any]]:
    counts: dict[tuple[str, str | None], int] = {}
    for error in job.errors:
        counts[error.code, error.column] = counts.get((error.code, error.column), 0) + 1
    return [
        {"code": code, "count": count} | ({"column": column} if column is not None else {})
        for (code, column), count in counts.items()
    ]


def _file(upload: Upload) -> bytes:
    try:
        return upload.read()
    except FileNotFoundError:
        raise Refused(404, "file not found", file_path=upload.current_path) from None


def _query(call: Call, body: Body) -> dict[str, Any]:
    """The known parameters, checked; those that nobody knows go to `call.unknown`."""
    known = contract.properties(body)
    values: dict[str, Any] = {}
    for name, value in call.query:
        if name not in known:
            call.unknown.append(name)
        elif name in values:
            raise Refused(400, f"{name} comes more than once")
        elif name == "page_size":
            values[name] = int(value) if value.isascii() and value.isdigit() else value
        else:
            values[name] = value
    return _checked(body, values)


def _json_body(call: Call) -> dict[str, Any]:
    """The body of a search, none being an empty one."""
    if not call.body:
        return {}
    if media_type(call) != "application/json":
        raise Refused(400, "Content-Type must be application/json", content_type=call.headers.get("Content-Type"))
    try:
        value = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        raise Refused(400, "body is not JSON") from None
    request = _checked(Body.MISSING_REQUEST, value)
    call.unknown += request.keys() - contract.properties(Body.MISSING_REQUEST)
    return request


def _checked(body: Body, value: Any) -> dict[str, Any]:
    try:
        contract.check(body, value)
    except OffContract as error:
        raise Refused(400, str(error)) from None
    return dict(value)
