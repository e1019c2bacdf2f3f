"""Energies of delivery records over a day of one-second ticks, beside exact fractions."""

from fractions import Fraction

import numpy as np

from gateway.domain.events.delivery_records import Records, Sight
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.measured import power_of
from gateway.domain.limits.envelope import envelope
from gateway.domain.limits.types import LimitParams
from gateway.domain.types import Mode, Now
from tests.builders.fleets import NOW, fleet_of

DAY_S = 86_400
OFF_PART = 1e-5
ODD_W = np.concatenate((np.arange(21, 400, 14), np.arange(401, 5_000, 122)))


def test_energies_of_a_day_of_odd_powers_are_those_of_exact_sums() -> None:
    n = len(ODD_W)
    asked_w, given_w = ODD_W, ODD_W - 7 - ODD_W // 16 * 2
    snapshot = fleet_of(
        n, soc_pct=60, battery_w=given_w.astype(np.float64), authority=Authority.CONTROLLED, mode=Mode.REMOTE,
        setpoint_w=asked_w,
    )  # fmt: skip
    records = Records()
    records.include(np.arange(n, dtype=np.int32), n)
    sight = Sight(
        snapshot=snapshot, allowed=envelope(snapshot, NOW, LimitParams()),
        power=power_of(snapshot, NOW, np.zeros(0, dtype=np.int64)), asked_w=asked_w, wanted_w=asked_w,
        unresponsive=np.zeros(n, dtype=np.bool_), unreached=np.zeros(n, dtype=np.int8),
        serves=np.full(n, 2, dtype=np.int16), by_own_mode=np.zeros(n, dtype=np.bool_),
    )  # fmt: skip
    everybody, nobody = np.ones(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
    for s in range(DAY_S + 1):
        now = Now(utc_ms=NOW.utc_ms + 1_000 * s, mono_ms=NOW.mono_ms + 1_000 * s)
        records.observe(sight, everybody, nobody, now, sign=1)
    rows = records.rows
    for at in range(n):
        asked, given = (Fraction(int(power_w[at]) * DAY_S, 3_600) for power_w in (asked_w, given_w))
        told = (rows.asked_wh, rows.delivered_wh, rows.shortfall_wh, rows.shared_wh)
        for wh, exact in zip(told, (asked, given, asked - given, given), strict=True):
            assert abs(Fraction(float(wh[at])) - exact) <= abs(exact) * Fraction(OFF_PART)
    assert not rows.unmeasured_wh[:n].any()
