"""A gateway that cannot read what it has stored takes live readings and leaves energy to those who sent it."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from gateway.domain.readings import AckToken, ReadingBatch, StatusBatch
from gateway.services.telemetry.live_only import LiveOnly
from tests.builders.fakes import FakeLink

STATUS = StatusBatch(slots=np.array([0], dtype=np.int32), online=np.array([True]))


def test_energy_is_neither_counted_nor_acknowledged_where_what_was_stored_cannot_be_read() -> None:
    heard: list[ReadingBatch] = []
    ingest = cast("Any", SimpleNamespace(emitter=lambda _source, sender: heard.append))
    link, token = FakeLink(), AckToken(generation=1, packet_ids=[7])
    part = LiveOnly(ingest)
    part.emitter(link, sender=link)(ReadingBatch(status=STATUS, energy=cast("Any", object()), token=token))
    (batch,) = heard
    assert (batch.status, batch.energy, batch.token) == (STATUS, None, None)
    assert part.reasons() == ["telemetry: what was stored cannot be read; no energy is taken"]
