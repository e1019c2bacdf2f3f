"""Energy between samples of a polled device, against exact integrals."""

import math

import pytest

from gateway.services.devices.energy_integrator import EnergyIntegrator


def test_meter_constant_power_is_power_times_time() -> None:
    meter = EnergyIntegrator(gap_ms=10_000)
    for t_ms in range(0, 60_001, 5_000):
        meter.add(t_ms, 1_200.0)
    assert meter.collect() == pytest.approx((60_000, 0.0, 20.0))


def test_meter_ramp_is_exact_and_directions_stay_apart() -> None:
    meter = EnergyIntegrator(gap_ms=10_000)
    for t_ms, power_w in ((0, 0.0), (6_000, 600.0), (12_000, 0.0), (18_000, -600.0), (24_000, 0.0)):
        meter.add(t_ms, power_w)
    assert meter.collect() == pytest.approx((24_000, 1.0, 1.0))


def test_meter_samples_follow_each_other_without_a_gap_or_an_overlap() -> None:
    meter, taken = EnergyIntegrator(gap_ms=10_000), []
    for t_ms in range(0, 90_001, 3_000):
        meter.add(t_ms, 3_600.0)
        if t_ms % 30_000 == 0 and t_ms:
            taken.append(meter.collect())
    assert [span for span, _, _ in taken] == [30_000, 30_000, 30_000]
    assert [round(out_wh, 9) for _, _, out_wh in taken] == [30.0, 30.0, 30.0]


def test_meter_silence_is_a_gap_never_filled() -> None:
    meter = EnergyIntegrator(gap_ms=10_000)
    meter.add(0, 1_000.0)
    meter.add(5_000, 1_000.0)
    meter.add(60_000, 1_000.0)
    meter.add(65_000, 1_000.0)
    assert meter.collect() == pytest.approx((5_000, 0.0, 1_000 * 5 / 3_600))
    assert meter.gaps == 1


def test_meter_unknown_power_counts_nothing() -> None:
    meter = EnergyIntegrator(gap_ms=10_000)
    for t_ms in (0, 5_000):
        meter.add(t_ms, math.nan)
    assert meter.collect() == (0, 0.0, 0.0)
