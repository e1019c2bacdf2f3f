"""Sends interval records to an HTTP receiver: gzip JSON batches with an idempotency key.

Body: `{"batch": id, "intervals": [row, ...]}`. 2xx with no `rejected` = all accepted; 2xx with `rejected:
[{"row": i, ...}]` = those rows refused for good; 429 and 5xx = later (Retry-After honoured); any other 4xx = the
receiver refuses the whole batch, which is a fault of configuration, so the sink keeps and reports it.
"""

import asyncio
import gzip
from typing import Annotated, Any, Literal

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from gateway.domain.intervals.record import IntervalRecord
from gateway.ports.sinks import Accept, IntervalBatch, Keep, Reject, SinkResult
from gateway.schemas.interval_rows import RowsPerS, row_of
from gateway.sinks.web import exchange, open_session

BATCH_ROWS = 1_000


class HttpSinkSettings(BaseModel):
    """Where to post. `token` is sent as a bearer token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["http"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    url: Annotated[str, Field(pattern=r"^https?://")]
    token: SecretStr | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30
    rows_per_s_max: RowsPerS = 10_000


class HttpSink:
    """One HTTP receiver. Create it inside a running loop; end it with `close`."""

    def __init__(self, settings: HttpSinkSettings) -> None:
        self.name = settings.name
        self.batch_rows = BATCH_ROWS
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = open_session(self._settings.timeout_s)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def wants(self, _record: IntervalRecord) -> bool:
        return True

    async def send(self, batch: IntervalBatch) -> SinkResult:
        body = orjson.dumps({"batch": batch.id, "intervals": [row_of(record) for record in batch.rows]})
        packed = await asyncio.to_thread(gzip.compress, body, 1, mtime=0)
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "Idempotency-Key": batch.id}
        if self._settings.token is not None:
            headers["Authorization"] = f"Bearer {self._settings.token.get_secret_value()}"
        answer = await exchange(self._open(), "POST", self._settings.url, headers=headers, data=packed)
        return answer if isinstance(answer, Keep) else _judge(answer, rows=len(batch.rows))


def _judge(body: bytes, *, rows: int) -> SinkResult:
    if not body.strip():
        return Accept()
    try:
        answer: Any = orjson.loads(body)
        rejected = sorted({int(item["row"]) for item in answer.get("rejected", [])})
    except (orjson.JSONDecodeError, AttributeError, TypeError, KeyError, ValueError):
        return Keep(reason="reply_malformed")
    if any(not 0 <= index < rows for index in rejected):
        return Keep(reason="reply_malformed")
    return Reject(refused=dict.fromkeys(rejected, "refused_by_receiver")) if rejected else Accept()
