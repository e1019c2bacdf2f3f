"""A gateway that cannot read what it has stored takes live readings and leaves energy to those who sent it."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from gateway.app.recording import Recording
from gateway.domain.readings import AckToken, ReadingBatch, StatusBatch

STATUS = StatusBatch(slots=np.array([0], dtype=np.int32), online=np.array([True]))
TOKEN = AckToken(generation=1, packet_ids=[7])


def recording(heard: list[ReadingBatch], *, works: bool) -> Recording:
    """Only what is received goes on to `heard`."""

    async def run() -> None:
        """Serves for ever."""

    def part(**besides: Any) -> Any:
        return SimpleNamespace(run=run, reasons=list, **besides)

    ingest = part(emitter=lambda _, sender: heard.append)
    return Recording(
        ingest=ingest, recorder=part(), engine=cast("Any", None), log_writer=part(), repair=part(warnings=list),
        checkpoints=cast("Any", None), checkpointer=part(), recovered=cast("Any", object()) if works else None,
    )  # fmt: skip


@pytest.mark.parametrize("works", [True, False])
def test_energy_is_neither_counted_nor_acknowledged_where_what_was_stored_cannot_be_read(works: bool) -> None:
    heard: list[ReadingBatch] = []
    made = recording(heard, works=works)
    energy = cast("Any", object())
    made.emitter(cast("Any", None))(ReadingBatch(status=STATUS, energy=energy, token=TOKEN))
    (batch,) = heard
    assert batch.status is STATUS
    assert (batch.energy, batch.token) == ((energy, TOKEN) if works else (None, None))


def test_nothing_is_written_where_what_was_stored_cannot_be_read_and_readiness_says_so() -> None:
    assert set(recording([], works=True).services()) == {
        "ingest", "recorder", "log-writer", "repair", "checkpoint",
    }  # fmt: skip
    broken = recording([], works=False)
    assert (broken.services(), list(broken.samples())) == ({}, [])
    assert broken.reasons() == ["telemetry: what was stored cannot be read; no energy is taken"]
