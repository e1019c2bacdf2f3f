"""Energy that waits: bounded, in order, and every Wh is there."""

import math

import pytest

from gateway.domain.types import Now
from gateway.services.devices.energy_integrator import EnergySample
from gateway.services.devices.waiting_energy import PER_DEVICE, WaitingEnergy, join


def sample(discharge_wh: float = 1.0, *, span_ms: int = 1_000, grid_w: float = math.nan) -> EnergySample:
    return EnergySample(
        span_ms=span_ms, charge_counter_wh=math.nan, discharge_counter_wh=math.nan, charge_wh=0.0,
        discharge_wh=discharge_wh, battery_w=discharge_wh * 3_600_000 / span_ms, soc_pct=50.0, grid_w=grid_w,
        pv_w=math.nan, load_w=math.nan,
    )  # fmt: skip


def at(s: float) -> Now:
    return Now(utc_ms=1_000_000_000_000 + int(s * 1000), mono_ms=int(s * 1000))


def test_waiting_samples_come_out_as_they_went_in() -> None:
    waiting = WaitingEnergy()
    rows = [(slot, sample(slot + s), at(s)) for s in range(1, 20) for slot in range(3)]
    for row in rows:
        waiting.add(*row)
    assert waiting.take() == rows
    assert not waiting
    assert waiting.take() == []


@pytest.mark.parametrize("devices", [1, 3, 7, 40])
def test_waiting_beyond_the_bound_joins_what_follows_and_keeps_every_wh(devices: int) -> None:
    waiting = WaitingEnergy(most=16)
    for s in range(1, 501):
        for slot in range(devices):
            waiting.add(slot, sample(1.0 + slot), at(s))
    rows = waiting.take()
    assert len(rows) <= max(16, PER_DEVICE * devices)
    for slot in range(devices):
        own = [(one, now) for of, one, now in rows if of == slot]
        ends = [now.mono_ms for _, now in own]
        begins = [now.mono_ms - one.span_ms for one, now in own]
        assert begins[1:] == ends[:-1]
        assert ends[-1] == 500_000
        assert begins[0] == 0
        assert sum(one.discharge_wh for one, _ in own) == 500 * (1.0 + slot)
    assert waiting.lost == 0


def test_waiting_samples_with_a_gap_between_are_never_one_and_what_finds_no_room_is_counted() -> None:
    waiting = WaitingEnergy(most=8)
    for s in range(0, 100, 5):
        waiting.add(0, sample(), at(s))
    rows = waiting.take()
    assert len(rows) <= 8
    assert waiting.lost == 20 - len(rows)
    assert {one.span_ms for _, one, _ in rows} == {1_000}
    assert rows[-1][2] == at(95)


def test_joined_powers_are_means_over_time_and_unknown_ones_do_not_count() -> None:
    both = join(sample(2.0, span_ms=1_000, grid_w=100.0), sample(1.0, span_ms=3_000, grid_w=500.0))
    assert (both.span_ms, both.discharge_wh, both.grid_w) == (4_000, 3.0, 400.0)
    assert both.battery_w == pytest.approx(3.0 * 900)
    assert join(sample(grid_w=100.0), sample()).grid_w == 100.0
    assert math.isnan(both.pv_w)
