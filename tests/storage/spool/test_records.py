"""Spool records over versions: an older one is read with what it lacks unknown, a newer one is refused in words."""

import struct
import zlib

import numpy as np
import pytest

from gateway.domain.errors import NewerState
from gateway.domain.intervals.config import AgreedConfig
from gateway.domain.intervals.engine import Engine
from gateway.domain.intervals.records import RECORD_COLUMNS
from gateway.domain.intervals.types import IntervalRules
from gateway.storage.spool.records import (
    MAGIC,
    ROW_COLUMNS,
    SINCE_2,
    VERSION,
    Kind,
    Repair,
    batch_payload,
    config_payload,
    frame,
    read_step,
    record_at,
    repair_payload,
    same_records,
)
from tests.builders.energy_batches import at, batch, row

BATCH = batch([row(slot=s, seq=i, t=40 * i, span=40, charge_wh=2, discharge_wh=1, soc_pct=50) for s in (0, 1)
               for i in (1, 2, 3)])  # fmt: skip
RATED = np.full(6, 5000.0)


def of_version(version: int, kind: Kind, parts: list[bytes]) -> memoryview:
    """A whole record as another version would have written it: the header by the format's description."""
    length = sum(map(len, parts))
    checked = struct.pack("<4sBBHIQQ", MAGIC, kind, version, 0, length, 7, 1)
    crc = zlib.crc32(b"".join(parts), zlib.crc32(checked))
    return memoryview(struct.pack("<4sBBHIIQQ", MAGIC, kind, version, 0, length, crc, 7, 1) + b"".join(parts))


def test_record_of_the_first_version_is_read_with_what_it_lacks_unknown() -> None:
    closes = Engine(IntervalRules(length_s=60)).ingest(BATCH, at(120), RATED).records
    assert len(closes)
    parts = [struct.pack("<qII", at(120).utc_ms, len(BATCH), len(closes))]
    parts += [getattr(BATCH, n).astype(d).tobytes() for n, d in ROW_COLUMNS.items() if n not in SINCE_2]
    parts.append(RATED.astype("<f4").tobytes())
    parts += [getattr(closes, n).astype(d).tobytes() for n, d in RECORD_COLUMNS.items() if n not in SINCE_2]
    record = record_at(of_version(1, Kind.BATCH, parts), 0)
    assert record is not None
    step = read_step(record)
    assert step.batch is not None
    assert np.isnan(step.batch.grid_w).all()
    assert step.batch.charge_wh.tolist() == BATCH.charge_wh.tolist()
    assert step.records.charge_wh.tolist() == closes.charge_wh.tolist()
    assert step.records.quality.tolist() == [0] * len(closes)
    assert np.isnan(step.records.soc_start_pct).all()


@pytest.mark.parametrize("kind", [Kind.BATCH, 99])
def test_record_of_a_newer_version_is_refused_and_not_taken_for_damage(kind: int) -> None:
    with pytest.raises(NewerState, match=f"record 7 was written by a newer version .format {VERSION + 1}"):
        record_at(of_version(VERSION + 1, kind, [b"x"]), 0)  # type: ignore[arg-type]


def test_record_of_a_repair_and_of_terms_comes_back_as_it_was() -> None:
    engine = Engine(IntervalRules(length_s=60))
    closes = engine.ingest(BATCH, at(120), RATED).records
    repair = Repair(slots=np.array([3, 4], dtype=np.int32), start_ms=np.array([60_000, 120_000]), bases=closes)
    agreed = AgreedConfig(
        slots=np.array([0], dtype=np.int32), length_s=np.array([180]), counter_step_wh=np.array([np.nan]),
        rated_w=np.array([5000.0]),
    )  # fmt: skip
    cut = engine.agree(agreed)
    for kind, parts in (
        (Kind.REPAIR, repair_payload(at(1), repair, cut)), (Kind.TERMS, config_payload(at(1), agreed, cut)),
        (Kind.BATCH, batch_payload(at(1), BATCH, RATED, cut)),
    ):  # fmt: skip
        record = record_at(memoryview(frame(kind, 1, 1, parts)), 0)
        assert record is not None
        step = read_step(record)
        assert same_records(step.records, cut)
        if step.repair is not None:
            assert step.repair.start_ms.tolist() == [60_000, 120_000]
            assert same_records(step.repair.bases, closes)
        if step.config is not None:
            assert step.config.length_s.tolist() == [180]
        assert (step.repair is not None, step.config is not None, step.batch is not None) == (
            kind is Kind.REPAIR, kind is Kind.TERMS, kind is Kind.BATCH,
        )  # fmt: skip
