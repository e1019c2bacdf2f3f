"""Builds energy batches for tests: rows as keyword dictionaries, unknown unless said."""

from collections.abc import Sequence

import numpy as np

from gateway.domain.readings import EnergyBatch
from gateway.domain.types import Floats, Ints, Now

T0 = 1_800_000_000_000
EVER_MS = 1 << 62
NAN = float("nan")


def at(seconds: float) -> Now:
    """The instant `seconds` after `T0` (which is on an edge of every interval length used here)."""
    return Now(utc_ms=T0 + round(seconds * 1000), mono_ms=round(seconds * 1000))


def row(
    *, slot: float = 0, boot: float = 1, seq: float = 1, t: float = 10, span: float = 10, **known: float
) -> dict[str, float]:
    """One sample; `t` and `span` in s, `t` after `T0`."""
    return {
        "slot": slot,
        "boot": boot,
        "seq": seq,
        "t_ms": T0 + round(t * 1000),
        "span_ms": round(span * 1000),
        **known,
    }


def batch(rows: Sequence[dict[str, float]]) -> EnergyBatch:
    """The rows as columns."""

    def floats(name: str) -> Floats:
        return np.array([r.get(name, NAN) for r in rows], dtype=np.float64)

    def ints(name: str) -> Ints:
        return np.array([r[name] for r in rows], dtype=np.int64)

    return EnergyBatch(
        slots=ints("slot").astype(np.int32),
        boot=ints("boot"),
        seq=ints("seq"),
        t_ms=ints("t_ms"),
        span_ms=ints("span_ms"),
        charge_counter_wh=floats("charge_counter_wh"),
        discharge_counter_wh=floats("discharge_counter_wh"),
        charge_wh=floats("charge_wh"),
        discharge_wh=floats("discharge_wh"),
        battery_w=floats("battery_w"),
        soc_pct=floats("soc_pct"),
        grid_w=floats("grid_w"),
        pv_w=floats("pv_w"),
        load_w=floats("load_w"),
    )


def random_batch(rng: np.random.Generator, n: int, *, devices: int, length_s: int, spread: int) -> EnergyBatch:
    """Rows with everything that goes wrong: repeats, disorder, boots, resets, jumps, gaps, wrong clocks and NaN."""

    def some(values: Floats, share: float) -> Floats:
        return np.where(rng.random(n) < share, values, np.nan)

    t = T0 + rng.integers(1, spread * length_s + 1, n) * 1000
    t = np.where(rng.random(n) < 0.05, t // 1_000_000, t)
    with_counter = rng.random() < 0.7
    slow = (t - T0) / 36_000
    return EnergyBatch(
        slots=rng.integers(0, devices, n).astype(np.int32),
        boot=rng.integers(0, 3, n),
        seq=rng.integers(1, 150, n),
        t_ms=t,
        span_ms=rng.integers(0, round(length_s * 1.1), n) * 1000,
        charge_counter_wh=some(slow + rng.choice([0.0, 0.0, 0.0, 500.0, -3.0], n), 0.9 if with_counter else 0.0),
        discharge_counter_wh=some(slow * 2, 0.5 if with_counter else 0.0),
        charge_wh=some(rng.random(n) * 40 - 1, 0.8),
        discharge_wh=some(rng.random(n) * 40, 0.8),
        battery_w=some(rng.normal(0, 3000, n), 0.9),
        soc_pct=some(rng.random(n) * 100, 0.8),
        grid_w=some(rng.normal(0, 3000, n), 0.5),
        pv_w=some(rng.random(n) * 5000, 0.2),
        load_w=np.full(n, np.nan),
    )
