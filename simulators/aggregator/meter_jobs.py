"""Asynchronous creation and update of meters, JSON or CSV; provisional assets; single creation (sections 3.1, 3.2).

A job is judged when it leaves PROCESSING; its assets then carry what became of each. A test may decide the fate of a
partner reference beforehand. Not public [?]: the header of the CSV (here names flattened with dots, as another list
shows them), and whether a row against the schema refuses the request or fails alone (switch; here the request).
"""

import csv
import io
import uuid
from dataclasses import dataclass, field
from typing import Any

import orjson

from simulators.aggregator.contract import Body, JsonSchema, OffContract
from simulators.aggregator.meter_book import MeterBook
from simulators.aggregator.meter_shapes import (
    ASSET,
    ASSETS,
    CREATE_ONE,
    CREATE_QUERY,
    CREATED_ONE,
    JOB_ID,
    JOB_REPLY,
    JOBS_REPLY,
    LIST_QUERY,
    PROVISIONAL_REPLY,
    typed,
)
from simulators.aggregator.meters_error import meters_envelope
from simulators.aggregator.paging import Tokens
from simulators.aggregator.permissions import Permission
from simulators.aggregator.refusal import Refused
from simulators.aggregator.service import CSV, JSON, Call, Reply, Route, Service, canonical, media_type, query
from simulators.aggregator.switches import Operation, Wait
from simulators.aggregator.times import ServerClock, time_text

PAGE = 100
PATH = "/v1.1/jobs/meters"
Doc = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetFate:
    """What becomes of an asset, whatever it holds."""

    status: str = "FAILED"
    name: str = "ADDRESS_NOT_FOUND"
    description: str = "The address was not found"
    failed_fields: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class MeterJob:
    """One request. `results` are the states of its assets, in their order."""

    job_id: str
    assets: list[Doc]
    update_existing: bool
    created_ms: int
    updated_ms: int
    file_name: str | None = None
    status: str = "PROCESSING"
    looks: int = 0
    updated_count: int = 0
    results: list[Doc] = field(default_factory=list)

    def body(self) -> Doc:
        """As the list has it."""
        completed = sum(one["status"] == "COMPLETED" for one in self.results)
        doc: Doc = {
            "job_id": self.job_id,
            "status": self.status,
            "assets_count": len(self.assets),
            "assets_created_count": completed - self.updated_count,
            "assets_updated_count": self.updated_count,
            "assets_failed_count": 0 if self.status == "PROCESSING" else len(self.results) - completed,
            "transmission_regions": sorted({str(one.get("transmission_region")) for one in self.assets}),
            "created_at": time_text(self.created_ms),
            "updated_at": time_text(self.updated_ms),
        }
        return doc | ({"file_name": self.file_name} if self.file_name is not None else {})


class MeterJobs:
    """The jobs of the account. `pace` is how long one is PROCESSING; `fates` go by partner reference."""

    def __init__(self, book: MeterBook, clock: ServerClock) -> None:
        self.jobs: list[MeterJob] = []
        self.pace = Wait()
        self.fates: dict[str, AssetFate] = {}
        self.onboarding_tokens: set[str] = set()
        self.bad_rows_refuse_all = True
        self._book = book
        self._clock = clock
        self._tokens = Tokens()

    def service(self) -> Service:
        """What the server mounts."""
        write, read = Permission.REGISTER_METER, Permission.GET_METER
        rows = (
            ("POST", PATH, Operation.METER_JOB_CREATE, write, self._create),
            ("GET", PATH, Operation.METER_JOBS, read, self._list),
            ("GET", PATH + "/{job_id}", Operation.METER_JOB, read, self._get),
            ("GET", "/v1.1/provisional-assets", Operation.PROVISIONAL_ASSETS, read, self._provisional),
            ("POST", "/v1.1/meters", Operation.METER_CREATE, None, self._create_one),
        )
        routes = tuple(
            Route(method=method, path=path, operation=operation, permission=permission, handler=handler)
            for method, path, operation, permission, handler in rows
        )
        return Service(name="meter jobs", prefixes=(PATH,), routes=routes, envelope=meters_envelope)

    def settle(self) -> None:
        """End the jobs whose time is over."""
        now_ms = self._clock.utc_ms()
        for job in self.jobs:
            if job.status == "PROCESSING" and self.pace.over(job.looks, (now_ms - job.created_ms) / 1000):
                self._end(job)

    def _create(self, call: Call) -> Reply:
        asked = query(call, CREATE_QUERY)
        if media_type(call) == CSV:
            assets, place = _rows(call.body), "csv_row"
        elif media_type(call) == JSON:
            assets, place = _assets(call.body), "json_index"
        else:
            raise Refused(400, "Content-Type must be application/json or text/csv")
        problems = [
            {"message": problem, place: index + (place == "csv_row"), "problem_field": problem_field}
            for index, asset in enumerate(assets)
            for problem_field, problem in _problems(asset).items()
        ]
        if problems and (self.bad_rows_refuse_all or any("partner_reference" not in asset for asset in assets)):
            raise Refused(400, "Assets are not valid", items=problems)
        now_ms = self._clock.utc_ms()
        job = MeterJob(
            job_id=str(uuid.uuid4()),
            assets=assets,
            update_existing=asked.get("update_existing", False),
            file_name=asked.get("file_name"),
            created_ms=now_ms,
            updated_ms=now_ms,
        )
        job.results = [_status(asset, "PROCESSING", job) for asset in assets]
        self.jobs.append(job)
        return Reply(status=201, json={"job_id": job.job_id}, body=JOB_ID)

    def _end(self, job: MeterJob) -> None:
        references = [asset["partner_reference"] for asset in job.assets]
        job.results = [self._result(job, asset, references) for asset in job.assets]
        good = sum(one["status"] == "COMPLETED" for one in job.results)
        job.status = "COMPLETED" if good == len(job.results) else "COMPLETED_WITH_ERRORS" if good else "FAILED"
        job.updated_ms = self._clock.utc_ms()

    def _result(self, job: MeterJob, asset: Doc, references: list[str]) -> Doc:
        reference = asset["partner_reference"]
        fate = self.fates.get(reference)
        if fate is not None:
            detail = {"failed_fields": fate.failed_fields} if fate.failed_fields else {}
            return _status(asset, fate.status, job, fate.name, fate.description, **detail)
        problems = _problems(asset)
        if problems:
            return _status(asset, "FAILED", job, "VALIDATION_ERROR", "Fields are not valid", failed_fields=problems)
        if references.count(reference) > 1:
            return _status(asset, "MULTIPLE_PARTNER_REFERENCE", job)
        meter = self._book.by_reference(reference)
        if meter is None:
            meter = self._book.add(asset)
            result = _status(asset, "COMPLETED", job, "METER_CREATED", "Meter created")
        elif job.update_existing:
            self._book.update(meter, asset)
            job.updated_count += 1
            result = _status(asset, "COMPLETED", job, "METER_UPDATED", "Meter updated")
        else:
            told = f"Partner reference is used by meter {meter.meter_id}"
            return _status(asset, "DUPLICATE", job, "DUPLICATE_REF_ID", told)
        return result | {"meter_id": meter.meter_id}

    def _get(self, call: Call) -> Reply:
        job = next((one for one in self.jobs if one.job_id == call.ids["job_id"]), None)
        if job is None:
            raise Refused(404, "Job not found", job_id=call.ids["job_id"])
        self.settle()
        job.looks += 1
        return Reply(json=job.body() | {"assets": job.results}, body=JOB_REPLY)

    def _list(self, call: Call) -> Reply:
        asked = query(call, LIST_QUERY, lists=frozenset({"filter"}))
        self.settle()
        token, size = asked.pop("page_token", None), asked.pop("page_size", PAGE)
        entries = [((-number,), job.body()) for number, job in enumerate(self.jobs) if _wanted(job.body(), asked)]
        page, next_token = self._tokens.page("jobs", canonical(asked), token, size, sorted(entries, key=_key))
        return Reply(json={"jobs": page} | _next(next_token), body=JOBS_REPLY)

    def _provisional(self, call: Call) -> Reply:
        asked = query(call, LIST_QUERY, lists=frozenset({"filter"}))
        self.settle()
        token, size = asked.pop("page_token", None), asked.pop("page_size", PAGE)
        all_ = (
            ((number, row), result | {"job_id": job.job_id, "data": job.assets[row]})
            for number, job in enumerate(self.jobs)
            for row, result in enumerate(job.results)
        )
        entries = [(key, doc) for key, doc in all_ if _wanted(doc, asked)]
        page, next_token = self._tokens.page("assets", canonical(asked), token, size, entries)
        return Reply(json={"provisional_assets": page} | _next(next_token), body=PROVISIONAL_REPLY)

    def _create_one(self, call: Call) -> Reply:
        try:
            body = orjson.loads(call.body)
            CREATE_ONE.check(body)
        except (orjson.JSONDecodeError, OffContract) as error:
            return _refused_one(str(error))
        if body["onboarding_token"] not in self.onboarding_tokens:
            return _refused_one("onboarding_token is not valid")
        asset = body["provisional_asset"]
        now_ms = self._clock.utc_ms()
        job = MeterJob(job_id="", assets=[asset], update_existing=False, created_ms=now_ms, updated_ms=now_ms)
        return Reply(json=self._result(job, asset, [asset["partner_reference"]]) | {"data": asset}, body=CREATED_ONE)


def _status(asset: Doc, status: str, job: MeterJob, name: str = "", description: str = "", **more: Any) -> Doc:
    detail = {"name": name, "description": description} | more if name else {}
    return {
        "partner_reference": asset["partner_reference"],
        "status": status,
        "status_detail": detail,
        "created_at": time_text(job.created_ms),
    }


def _assets(body: bytes) -> list[Doc]:
    try:
        value = orjson.loads(body)
        ASSETS.check(value)
    except (orjson.JSONDecodeError, OffContract) as error:
        raise Refused(400, str(error)) from None
    return list(value["assets"])


def _rows(body: bytes) -> list[Doc]:
    try:
        rows = list(csv.DictReader(io.StringIO(body.decode()), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise Refused(400, "file is not CSV") from None
    return [_unflattened(row) for row in rows]


def _unflattened(row: dict[str, str]) -> Doc:
    """`customer.city`, `load_types.0` and the like as an asset; empty cells are absent."""
    asset: Doc = {}
    for name, text in row.items():
        if not text or name is None:
            continue
        *path, last = name.removeprefix("data.").split(".")
        schema: JsonSchema = ASSET.schema
        at: Doc = asset
        for step in path:
            schema = schema.get("properties", {}).get(step, schema.get("items", {}))
            at = at.setdefault(step, {})
        at[last] = typed(text, schema.get("properties", {}).get(last, {}))
    if isinstance(asset.get("load_types"), dict):
        asset["load_types"] = [value for _, value in sorted(asset["load_types"].items())]
    return asset


def _problems(asset: Any) -> dict[str, str]:
    try:
        ASSET.check(asset)
    except OffContract as error:
        _, field_, message = str(error).split(": ", 2)
        return {field_: message}
    return {}


def _wanted(doc: Doc, asked: Doc) -> bool:
    for text in asked.get("filter", ()):
        key, _, values = text.partition(":")
        if str(doc.get(key)) not in values.split(","):
            return False
    sought = asked.get("search_query", "").lower()
    return not sought or any(sought in str(doc.get(name, "")).lower() for name in asked["search_fields"].split(","))


def _key(entry: tuple[tuple[int], Doc]) -> tuple[int]:
    return entry[0]


def _next(token: str | None) -> Doc:
    return {"next_page_token": token} if token is not None else {}


def _refused_one(description: str) -> Reply:
    return Reply(status=400, json={"errors": [{"description": description}]}, body=Body.CREATE_METER_ERROR)
