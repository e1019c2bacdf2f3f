"""The daemon holds events against the programs that its configuration names, and knows over restarts what they used."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.app.daemon import Gateway, gateway
from gateway.clock import ManualClock, SteadyClock
from gateway.config.loader import load_settings
from gateway.domain.errors import InvalidInput
from gateway.domain.events.book import Answer, Outcome, Refusal
from gateway.domain.events.request import EventKind, EventRequest, TargetGroup, power
from gateway.domain.types import EventId
from gateway.services.events.intake import Dispatcher
from tests.builders.programs import changed
from tests.config.test_settings import write

PROFILES = Path(__file__).parents[2] / "device_profiles"
EVENING_MS = 1_751_929_200_000
"""16:00 of Monday, 7 July 2025 in Los Angeles."""

HOUR_MS = 3_600_000
EVENT = EventRequest(
    id=EventId("e"), revision=1, kind=EventKind.REAL, program="sample", group=TargetGroup(all=True),
    start_ms=EVENING_MS, end_ms=EVENING_MS + HOUR_MS, target=power(1_000.0), priority=1, source="rest",
)  # fmt: skip


def configured(directory: Path, text: str) -> Path:
    programs = directory / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "sample.yaml").write_text(text, encoding="utf-8")
    return write(directory, http={"port": 0}, profiles_dir=str(PROFILES), programs_dir="programs")


async def submitted(running: Gateway, request: EventRequest) -> Answer:
    dispatcher = next(part for part in running.parts if isinstance(part, Dispatcher))
    return await dispatcher.submit(request)


async def test_what_a_program_used_is_counted_over_a_restart(tmp_path: Path) -> None:
    settings = load_settings(configured(tmp_path, changed("{max: 35, per: season}", "{max: 1, per: season}")))
    clock = ManualClock(utc_ms=EVENING_MS - 30 * HOUR_MS)
    async with gateway(settings, clock=SteadyClock(clock)) as running:
        assert (await submitted(running, EVENT)).outcome is Outcome.ACCEPTED
    day_ms = 24 * HOUR_MS
    other = replace(EVENT, id=EventId("f"), start_ms=EVENING_MS + day_ms, end_ms=EVENING_MS + day_ms + HOUR_MS)
    async with gateway(settings, clock=SteadyClock(clock)) as running:
        answer = await submitted(running, other)
        assert (answer.reason, "this is number 2" in answer.warnings[0]) == (Refusal.PROGRAM_RULES, True)


async def test_a_daemon_does_not_start_with_a_program_that_has_faults(tmp_path: Path) -> None:
    settings = load_settings(configured(tmp_path, changed("utilities: [South]", "utilities: [West]")))
    with pytest.raises(InvalidInput, match="'West' is not among the utilities"):
        async with gateway(settings, clock=SteadyClock(ManualClock(utc_ms=EVENING_MS))):
            pass
