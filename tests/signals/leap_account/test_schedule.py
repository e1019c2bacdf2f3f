"""When enrollments are read: on schedule, soon after a hint or a mismatch, and with patience while that fails."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

from gateway.domain.journal.changes import AuditDoor
from gateway.services.programs.leap_sync import LeapSync
from gateway.transports.leap.errors import LeapUnclear
from tests.services.programs.stores import BASE, opened
from tests.virtual.clock import VirtualClock


class Listing:
    """An account without meters. `reads`: when each read began, s."""

    def __init__(self) -> None:
        self.reads: list[float] = []
        self.failing = False

    async def pages(self, *_asked: object, **_how: object) -> AsyncIterator[dict[str, Any]]:
        self.reads.append(asyncio.get_running_loop().time())
        if self.failing:
            raise LeapUnclear("HTTP 503", status=503)
        yield {"meters": []}


async def during(
    tmp_path: Path,
    seconds: float,
    *,
    every_s: float | None,
    named: int = 0,
    hint_s: float = 0,
    failing: bool = False,
    stated: bool = False,
) -> tuple[list[float], LeapSync]:
    """When reads began within so many seconds, counted from the start."""
    listing, begin = Listing(), asyncio.get_running_loop().time()
    listing.failing = failing
    async with opened(tmp_path) as (enrollments, _):
        sync = LeapSync(
            cast("Any", listing), enrollments, program_of={}, clock=VirtualClock(), every_s=every_s,
            mismatched=lambda: named, rng=random.Random(1),
        )  # fmt: skip
        task = asyncio.create_task(sync.run())
        if hint_s:
            await asyncio.sleep(hint_s)
            if stated:
                table = ",".join(BASE) + "\n" + ",".join(BASE.values()) + "\n"
                await enrollments.import_enrollments(table, form="csv", by="x", door=AuditDoor.REST)
            else:
                sync.hint()
        await asyncio.sleep(seconds - hint_s)
        task.cancel()
    return [at - begin for at in listing.reads], sync


async def test_all_is_read_at_the_start_and_on_schedule(tmp_path: Path) -> None:
    reads, _ = await during(tmp_path, 2_000, every_s=900)
    assert [round(at) for at in reads] == [0, 900, 1_800]


async def test_homes_that_events_name_and_are_not_active_have_all_read_within_a_minute(tmp_path: Path) -> None:
    reads, _ = await during(tmp_path, 200, every_s=900, named=1)
    assert len(reads) >= 3
    assert all(30 <= later - earlier <= 60 for earlier, later in itertools.pairwise(reads))


async def test_homes_that_events_name_have_all_read_within_a_minute_also_without_a_schedule(tmp_path: Path) -> None:
    reads, _ = await during(tmp_path, 200, every_s=None, named=1)
    assert len(reads) >= 3
    assert reads[0] <= 60


async def test_hint_has_all_read_within_a_minute_also_without_a_schedule(tmp_path: Path) -> None:
    reads, _ = await during(tmp_path, 400, every_s=900, hint_s=100)
    assert len(reads) == 2
    assert 100 <= reads[1] <= 160
    reads, _ = await during(tmp_path, 400, every_s=None, hint_s=100)
    assert [round(at) for at in reads] == [100]


async def test_change_of_our_book_has_all_read_within_a_minute_where_there_is_a_schedule(tmp_path: Path) -> None:
    reads, _ = await during(tmp_path, 800, every_s=900, hint_s=100, stated=True)
    assert len(reads) == 2
    assert 100 <= reads[1] <= 160
    (tmp_path / "other").mkdir()
    reads, _ = await during(tmp_path / "other", 800, every_s=None, hint_s=100, stated=True)
    assert reads == []


async def test_read_that_fails_is_tried_again_with_patience_and_its_age_grows(tmp_path: Path) -> None:
    reads, sync = await during(tmp_path, 4_000, every_s=900, failing=True)
    pauses = [later - earlier for earlier, later in itertools.pairwise(reads)]
    assert 5 < len(pauses) < 30
    assert pauses[0] < 10 < pauses[-1]
    assert {sample.name: sample.value for sample in sync.samples()}["gateway_leap_enrollment_age_seconds"] >= 3_999
    assert sync.warnings() == ["enrollments of the aggregator cannot be read: HTTP 503"]
