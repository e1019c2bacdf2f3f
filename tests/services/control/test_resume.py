"""A battery whose state of charge sags under load is not switched on and off near its bounds."""

from dataclasses import replace

import numpy as np
import orjson
import pytest

from gateway.domain.events.request import power
from simulators.messages import Outgoing
from tests.builders.homes import homes
from tests.scenes.street import Street

N = 4
SWITCHES_MAX = 3
"""Stopped, tried again after its rest, stopped."""


def sagging(street: Street, sag_pct: float, tau_s: float) -> Street:
    """SoC reads lower while discharging, and higher while charging, by `sag_pct` at full power."""
    sag, live = np.zeros(N), street.devices.live

    def said(now_ms: int) -> list[Outgoing]:
        out = []
        for message in live(now_ms):
            body, i = orjson.loads(message.payload), message.index
            sag[i] += (sag_pct * float(street.devices.batteries.battery_w[i]) / 5_000.0 - sag[i]) / tau_s
            body["soc_pct"] = round(min(max(body["soc_pct"] - sag[i], 0.0), 100.0))
            out.append(replace(message, payload=orjson.dumps(body)))
        return out

    street.devices.live = said  # type: ignore[method-assign]
    return street


@pytest.mark.parametrize(("sag_pct", "tau_s"), [(2, 60), (3, 120)])
@pytest.mark.parametrize(("soc_pct", "target_w"), [(29.0, 16_000.0), (97.0, -16_000.0)])
async def test_resume_battery_that_sags_near_a_bound_is_switched_a_few_times_in_25_minutes(
    sag_pct: int, tau_s: int, soc_pct: float, target_w: float
) -> None:
    street = Street(
        homes(
            N, capacity_wh=10_000.0, discharge_w_max=5_000.0, charge_w_max=5_000.0, reserve_pct=20.0,
            soc_start_pct=soc_pct, grid_charge_allowed=np.ones(N, dtype=np.bool_), site_import_w_max=np.inf,
        )
    )  # fmt: skip
    await sagging(street, sag_pct, tau_s).go(5)
    await street.submit("e", s=7_000, target=power(target_w))
    switches, before = np.zeros(N), None
    for _ in range(1_500):
        await street.go(1)
        runs = street.fleet.control.setpoint_w[:N] * np.sign(target_w) > 0
        switches += 0 if before is None else runs != before
        before = runs
    assert switches.max() <= SWITCHES_MAX
    assert street.problems == []
