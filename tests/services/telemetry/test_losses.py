"""Energy that is refused, left out, late or lost: a message causes it, and a scrape shows how much."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.domain.intervals.types import IntervalRules
from gateway.domain.readings import ReadingBatch
from gateway.observability.metrics import registry
from tests.builders.energy_batches import T0, batch, row
from tests.builders.fakes import FACTS
from tests.scenes.telemetry import RULES, Rig, rig, token
from tests.scenes.waiting import until

MIDNIGHT_S = 86_400 - T0 // 1000 % 86_400
HOURS = IntervalRules(length_s=3600, grace_s=5)
COARSE = replace(FACTS, counter_step_wh=100.0)
SPAN = {"span": 10.0, "charge_wh": 1.5, "discharge_wh": 0.0}

Message = dict[str, float]


async def scraped(r: Rig, name: str) -> float:
    """The value of a counter without labels in a scrape."""
    text = (await registry([r.samples], []).text()).decode()
    (found,) = [line for line in text.splitlines() if line.startswith(f"{name}_total ")]
    return float(found.split()[1])


async def hear(r: Rig, messages: Sequence[Message]) -> None:
    """Messages of a link, each a read of its own, heard when they were sent."""
    link, emit = r.linked()
    for number, message in enumerate(messages, 1):
        r.clock.utc = max(r.clock.utc, round(message["t_ms"]))
        emit(ReadingBatch(energy=batch([message])))
        emit(ReadingBatch(token=token(number)))
        await until(lambda number=number: len(link.acknowledged) == number)  # type: ignore[misc]


def days(first: int, last: int) -> list[Message]:
    """An hour each: 100 Wh integrated, of which a coarse counter tells 125."""
    return [
        row(
            seq=hour + 1, t=MIDNIGHT_S + 3600 * hour, span=3600, charge_wh=100.0, discharge_wh=0.0,
            charge_counter_wh=125.0 * hour, discharge_counter_wh=0.0,
        )
        for hour in range(first, last)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "value", "messages"),
    [
        ("gateway_settlement_malformed", 1, [row(boot=-1)]),
        ("gateway_settlement_malformed", 1, [row(seq=-1)]),
        ("gateway_energy_powers_refused", 1, [row(battery_w=50_000.0)]),
        ("gateway_energy_spans_refused", 1, [row(span=-10, charge_wh=1.0)]),
        ("gateway_energy_spans_refused", 1, [row(charge_wh=-1.0)]),
        ("gateway_energy_spans_unused", 1,
         [row(seq=1, charge_counter_wh=0.0), row(seq=2, t=20, charge_wh=5.0)]),
        ("gateway_energy_jump_wh", 1_000.0, [row(charge_wh=1_000.0)]),
        ("gateway_energy_jump_wh", 2_000.0,
         [row(seq=1, charge_counter_wh=0.0), row(seq=2, t=20, charge_counter_wh=2_000.0)]),
        ("gateway_late_wh", 1.5,
         [row(seq=1, t=20, **SPAN), row(seq=3, t=70, **SPAN), row(seq=4, t=130, **SPAN), row(seq=5, t=190, **SPAN),
          row(seq=2, t=40, **SPAN)]),
        ("gateway_interval_revisions", 1,
         [row(seq=1, t=10, **SPAN), row(seq=3, t=65, **SPAN), row(seq=2, t=40, **SPAN), row(seq=4, t=125, **SPAN)]),
    ],
)  # fmt: skip
async def test_loss_that_a_message_causes_is_in_the_next_scrape(
    tmp_path: Path, metric: str, value: float, messages: list[Message]
) -> None:
    async with rig(tmp_path) as r:
        assert await scraped(r, metric) == 0
        await hear(r, messages)
        assert await scraped(r, metric) == value


async def test_loss_is_not_counted_where_nothing_is_wrong(tmp_path: Path) -> None:
    losses = (
        "gateway_settlement_malformed", "gateway_energy_powers_refused", "gateway_energy_spans_refused",
        "gateway_energy_spans_unused", "gateway_energy_jump_wh", "gateway_late_wh", "gateway_lost_wh",
        "gateway_energy_drift_wh", "gateway_interval_revisions",
    )  # fmt: skip
    async with rig(tmp_path) as r:
        await hear(r, [row(seq=1, t=10, battery_w=-540.0, **SPAN), row(seq=2, t=65, battery_w=-540.0, **SPAN)])
        assert {name: await scraped(r, name) for name in losses} == dict.fromkeys(losses, 0.0)


async def test_energy_off_its_coarse_counter_is_in_the_next_scrape(tmp_path: Path) -> None:
    async with rig(tmp_path, rules=HOURS, facts=COARSE) as r:
        await hear(r, days(0, 25))
        assert await scraped(r, "gateway_energy_drift_wh") == 600.0


async def test_energy_of_intervals_that_are_over_since_their_length_changed_is_in_the_next_scrape(
    tmp_path: Path,
) -> None:
    """Late data of an interval of the former length has no interval any more."""
    async with rig(tmp_path) as r:
        await hear(r, [row(seq=1, t=20, **SPAN), row(seq=3, t=130, **SPAN)])
        r.recorder.begin(replace(RULES, length_s=300), r.clock.now())
        await hear(r, [row(seq=2, t=40, **SPAN)])
        assert await scraped(r, "gateway_lost_wh") == 1.5
