"""Sends interval records to an HTTP receiver: gzip JSON batches with an idempotency key.

Body: `{"batch": id, "intervals": [row, ...]}`. The receiver accounts for every row in a 2xx answer:

    {"batch": id, "accepted": 998, "rejected": [{"row": 3, "reason": "no such home"}, {"row": 7}]}

The batch is the one sent, and `accepted` and the rejected rows (each once, refused for good) make up all of it; an
answer that says less or something else has accepted nothing. 401 and 403 stop the sink: a person must act. 429 and 5xx
= later (Retry-After honoured); 400, 413 and 422 = the batch is tried in halves; any other 4xx is kept and reported.
"""

import asyncio
import gzip
import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from gateway.domain.types import DeviceId
from gateway.observability.parts import Part
from gateway.ports.sinks import Accept, IntervalBatch, Keep, Reject, SinkResult
from gateway.schemas.interval_rows import RowsPerS, row_of
from gateway.sinks.web import ask, body_of
from gateway.transports.web import check_url, open_session

BATCH_ROWS = 1_000
TEXT_MAX, WORDS_MAX, REASON_MAX = 200, 6, 48
CODE = re.compile(r"[A-Za-z][A-Za-z_-]{0,31}[0-9]{0,4}", re.ASCII)


class _Rejected(BaseModel):
    """A row that the receiver refuses, by its place in the batch."""

    model_config = ConfigDict(strict=True, frozen=True)

    row: Annotated[int, Field(ge=0)]
    reason: str = ""


class _Answer(BaseModel):
    """What the receiver says of a batch; other members are its own."""

    model_config = ConfigDict(strict=True, frozen=True)

    batch: str
    accepted: Annotated[int, Field(ge=0)]
    rejected: list[_Rejected] = []


class HttpSinkSettings(BaseModel):
    """Where to post. `token` is sent as a bearer token, by https only unless the receiver is on this machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["http"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$", examples=["sink"])]
    url: Annotated[str, Field(pattern=r"^https?://", examples=["https://receiver.example/intervals"])]
    token: SecretStr | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30
    rows_per_s_max: RowsPerS = 10_000

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        check_url(self.url, secret=self.token is not None)
        return self


class HttpSink(Part):
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

    def wants(self, _device: DeviceId, _length_s: int) -> bool:
        return True

    def pick(self, devices: Sequence[DeviceId], _lengths_s: Sequence[int]) -> list[bool]:
        return [True] * len(devices)

    async def send(self, batch: IntervalBatch) -> SinkResult:
        packed = await asyncio.to_thread(_packed, batch)
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "Idempotency-Key": batch.id}
        if self._settings.token is not None:
            headers["Authorization"] = f"Bearer {self._settings.token.get_secret_value()}"
        reply = await ask(self._open(), "POST", self._settings.url, headers=headers, data=packed)
        answer = reply if isinstance(reply, Keep) else body_of(reply, sent=True)
        return _judge(answer, batch) if isinstance(answer, bytes) else answer

    async def settled(self, _batch: IntervalBatch) -> None:
        """Nothing is remembered between batches."""


def _packed(batch: IntervalBatch) -> bytes:
    body = orjson.dumps({"batch": batch.id, "intervals": [row_of(record) for record in batch.rows]})
    return gzip.compress(body, 1, mtime=0)


def _judge(body: bytes, batch: IntervalBatch) -> SinkResult:
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError:
        return Keep(reason="reply_malformed")
    refused = {one.row: _reason(one.reason) for one in answer.rejected}
    rows = len(batch)
    if answer.batch != batch.id:
        return Keep(reason="reply_of_another_batch")
    if (
        len(refused) != len(answer.rejected)
        or answer.accepted + len(refused) != rows
        or max(refused, default=0) >= rows
    ):
        return Keep(reason="reply_does_not_account_for_every_row")
    return Reject(refused=refused) if refused else Accept()


def _reason(text: str) -> str:
    """The receiver's reason as a name: its code, or the words of its text that have no digits, for those may be
    somebody's. Reasons stay few and short, whatever it says."""
    if CODE.fullmatch(text):
        return text.lower()
    words = [part.lower() for part in re.split(r"[^A-Za-z0-9.@]+", text[:TEXT_MAX]) if part.isalpha()]
    return "_".join(words[:WORDS_MAX])[:REASON_MAX] or "refused_by_receiver"
