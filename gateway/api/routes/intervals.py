"""`GET /v1/intervals`: a page as JSON, or everything as a stream of CSV or NDJSON."""

import asyncio
import logging
from contextlib import aclosing
from typing import Annotated, Literal

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.exchange import json_list, read_query
from gateway.api.interval_models import IntervalList
from gateway.domain.errors import StorageError
from gateway.domain.intervals.columns import IntervalColumns
from gateway.schemas.event import Identifier, Moment
from gateway.schemas.interval_rows import IntervalBody, csv_lines, row_of
from gateway.services.telemetry.history import History, Question
from gateway.storage.interval_log.merge import Place

log = logging.getLogger(__name__)

PAGE_MAX = 10_000
NAMES_MAX = 10_000
CONTENT_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
COLUMNS = tuple(IntervalBody.model_fields)


class IntervalQuery(BaseModel):
    """Which intervals, and how. `after`: the `next` of the page before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Moment = Field(alias="from")
    to: Moment
    device: Annotated[list[Identifier], Field(max_length=NAMES_MAX)] = []
    tag: Annotated[list[str], Field(max_length=256)] = []
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 1_000
    after: Annotated[str | None, Field(pattern=r"^[0-9]{1,15}~[A-Za-z0-9_.:-]{1,64}$")] = None
    format: Literal["json", "csv", "ndjson"] = "json"

    def question(self) -> Question:
        return Question(
            from_ms=round(self.since.timestamp() * 1000),
            to_ms=round(self.to.timestamp() * 1000),
            devices=tuple(self.device),
            tags=tuple(self.tag),
        )

    def place(self) -> Place | None:
        if self.after is None:
            return None
        ms, device = self.after.split("~", 1)
        return int(ms), device


async def answer(request: web.Request, history: History) -> web.StreamResponse:
    """A page, or a stream that ends cleanly only if it is complete."""
    query = read_query(request, IntervalQuery)
    if query.format != "json":
        return await _stream(request, history, query)
    rows, following = await history.page(query.question(), query.place(), query.limit)
    text = None if following is None else f"{following[0]}~{following[1]}"
    bodies = (IntervalBody(**row_of(row)) for row in rows)
    return await json_list(request, IntervalList(intervals=[], next=text), "intervals", bodies)


async def _stream(request: web.Request, history: History, query: IntervalQuery) -> web.StreamResponse:
    lines = csv_lines if query.format == "csv" else _ndjson
    response = web.StreamResponse(headers={"Content-Type": f"{CONTENT_TYPES[query.format]}; charset=utf-8"})
    begun = False
    try:
        async with aclosing(history.all(query.question())) as pages:
            async for page in pages:
                if not begun:
                    await response.prepare(request)
                    begun = True
                    if query.format == "csv":
                        await response.write((",".join(COLUMNS) + "\n").encode())
                await response.write(await asyncio.to_thread(lines, page))
    except StorageError as error:
        if not begun:
            raise
        log.error("a stream of intervals was cut short", extra={"error": str(error)})
        # without the end mark of a chunked answer nobody takes it for the whole
        if request.transport is not None:
            request.transport.abort()
        return response
    await response.write_eof()
    return response


def _ndjson(columns: IntervalColumns) -> bytes:
    return b"".join(orjson.dumps(row_of(row), option=orjson.OPT_APPEND_NEWLINE) for row in columns.objects())
