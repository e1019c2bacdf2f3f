"""The port of sinks: what carries interval records upstream, and what a receiver answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from gateway.domain.intervals.columns import IntervalColumns
from gateway.domain.intervals.record import IntervalRecord
from gateway.domain.types import DeviceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """The receiver has the whole batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """The receiver refuses these rows for good and has the others: the reason by position in the batch."""

    refused: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keep:
    """Nothing is known to have arrived: keep the batch and try later (not before `after_s`). `whole`: the receiver
    refuses this batch as a whole, but may accept a smaller one."""

    reason: str
    after_s: float = 0.0
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Nothing arrived, and a person must act first: the key, the request or the account is wrong, so the same rows
    would be refused again. `detail`: the receiver's words, cut short. `retry_s`: how long until one more try, in case
    it was mended at the other end; None = only when somebody asks for it."""

    reason: str
    detail: str = ""
    retry_s: float | None = None


SinkResult = Accept | Reject | Keep | Stop


@dataclass(frozen=True, kw_only=True)
class IntervalBatch:
    """Interval records in log order, as columns, or one by one (`rows`, made when they are first asked for: do that off
    the loop). `id` is the same for the same content: an idempotency key. `again`: somebody wants these sent again; they
    are not the next of the log."""

    id: str
    columns: IntervalColumns
    again: bool = False

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def rows(self) -> Sequence[IntervalRecord]:
        """The records one by one."""
        return self.columns.objects()


class Sink(Protocol):
    """A receiver of interval records. Passive: one batch, one answer; the uplink keeps the cursor and retries.
    `batch_rows`: the most rows of a batch."""

    name: str
    batch_rows: int

    def wants(self, device: DeviceId, length_s: int) -> bool:
        """Whether records of this device and length are for this receiver at all. Asking changes nothing."""
        ...

    def pick(self, devices: Sequence[DeviceId], lengths_s: Sequence[int]) -> list[bool]:
        """Which of the log's next rows it wants; the uplink passes over the others, and the sink may note them."""
        ...

    async def send(self, batch: IntervalBatch) -> SinkResult: ...

    async def settled(self, batch: IntervalBatch) -> None:
        """The uplink has made the answer to this batch durable, and will not offer it again of its own accord."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingInterval:
    """An interval that the aggregator waits for, ends in epoch ms. `device`: None = the meter is none of ours."""

    device: DeviceId | None
    meter_id: str
    start_ms: int
    end_ms: int
    status: str
    data_type: str
    deadline_ms: int | None


class Auditable(Protocol):
    """A receiver that can be asked what it lacks."""

    async def missing(self, from_ms: int, to_ms: int) -> Sequence[MissingInterval] | Keep | Stop:
        """The intervals that it lacks between two times (UTC ms); Keep or Stop when it cannot be asked."""
        ...
