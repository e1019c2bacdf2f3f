"""What the gateway says an event came to, judged from the intervals that the platform received: by battery within what
rounding may take, and the money to the cent.

A program that pays 2 USD per kWh of what batteries give, net of charging, without a baseline: an interval counts as far
as the event covers it, one without energy counts as nothing, and each home is paid to the cent, halves up.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import aiohttp

from simulators.ledger import IntervalRow
from simulators.oracle import Verdict, Window

USD_PER_KWH = Decimal(2)
CENT = Decimal("0.01")
ROUNDING_WH = 3.0
"""Of one battery: the ends of the event cut two intervals, and hours are rounded to whole Wh."""
WAIT_S, EVERY_S, ANSWER_S = 60.0, 1.0, 5.0
PAGE = 1_000

Rows = Mapping[tuple[str, int], IntervalRow]


def write_program(directory: Path, name: str, interval_s: int) -> None:
    """The program's file."""
    fact = {"evidence": "verified", "source": "demo"}
    document = {
        "language": 1, "program": name, "title": "Energy of the demo", "pricing": "rates", "zone": "UTC",
        "sources": {"demo": "The demo"},
        "versions": [
            {
                "version": "one", "from": "2020-01-01", **fact,
                "measurement": {
                    "point": {"value": "battery_ac", **fact}, "interval_length_s": {"value": interval_s, **fact}
                },
                "performance": {"baseline": {"value": "none", **fact}, "formula": {"value": "energy", **fact}},
                "rates": [
                    {"name": "energy", "amount": str(USD_PER_KWH), "currency": "USD", "per": "kwh", **fact}
                ],
            }
        ],
    }  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    # YAML is a superset of JSON.
    (directory / f"{name}.yaml").write_text(json.dumps(document, indent=2), encoding="utf-8")


def expected_wh(rows: Rows, device: str, window: Window) -> float:
    """What a battery gave in an event by the newest records, Wh net of charging."""
    found = 0.0
    for (name, start_ms), row in rows.items():
        end_ms = start_ms + row.length_s * 1000
        part = (min(end_ms, window.end_ms) - max(start_ms, window.start_ms)) / (row.length_s * 1000)
        if name == device and part > 0 and row.charge_wh is not None and row.discharge_wh is not None:
            found += (row.discharge_wh - row.charge_wh) * part
    return found


def paid(energies_wh: Sequence[int]) -> Decimal:
    """What homes are paid for these energies together, each to the cent."""
    each = (Decimal(wh) * USD_PER_KWH / 1000 for wh in energies_wh)
    return sum((one.quantize(CENT, ROUND_HALF_UP) for one in each), Decimal())


def faults(answer: Mapping[str, Any], devices: Sequence[str], rows: Rows, window: Window) -> list[str]:
    """What is wrong with an answer. `devices`: those of the event."""
    figures = {figure["name"]: figure for figure in answer["figures"]}
    found = []
    if set(figures) != set(devices):
        found.append(f"performance names {len(figures)} batteries of {len(devices)}")
    of_event = {key: row for key, row in rows.items() if key[0] in figures}
    by_device: dict[str, dict[tuple[str, int], IntervalRow]] = {}
    for key, row in of_event.items():
        by_device.setdefault(key[0], {})[key] = row
    for name, figure in figures.items():
        wanted = expected_wh(by_device.get(name, {}), name, window)
        if abs(figure["energy_wh"] - wanted) > ROUNDING_WH:
            found.append(f"{name}: {figure['energy_wh']} Wh by performance, {wanted:.1f} Wh by its intervals")
        if sum(figure["short_because"].values()) != figure["short_wh"]:
            found.append(f"{name}: the reasons of its shortfall do not sum to it")
    homes: dict[str, int] = {}
    for figure in figures.values():
        homes[figure["within"]] = homes.get(figure["within"], 0) + figure["energy_wh"]
    value, pay = answer["figure"]["value"], paid([*homes.values()])
    if value is None or value["value"] is None or Decimal(value["value"]) != pay:
        found.append(f"the event is worth {None if value is None else value['value']}, not {pay}")
    return found


async def asked(url: str, token: str, event: str) -> dict[str, Any] | None:
    """The performance of an event with all of its batteries; None = there is none."""
    headers, timeout = {"Authorization": f"Bearer {token}"}, aiohttp.ClientTimeout(total=ANSWER_S)
    whole: dict[str, Any] | None = None
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        after = ""
        while True:
            query = {"level": "device", "limit": str(PAGE), "after": after}
            async with session.get(f"{url}/v1/events/{event}/performance", params=query) as reply:
                if reply.status != 200:
                    return None
                page: dict[str, Any] = await reply.json()
            if whole is None or page["revision"] != whole["revision"]:
                whole, before = page, []
            else:
                before = whole["figures"]
            whole["figures"] = [*before, *page["figures"]] if after else page["figures"]
            if page["next"] is None:
                return whole
            after = page["next"]


async def judge(
    url: str, token: str, window: Window, devices: Sequence[str], latest: Callable[[], Rows],
    registered_ms: tuple[int, int], verdict: Verdict,
) -> None:  # fmt: skip
    """Ask until it is right, for a while: late records make it anew. `latest`: the newest records of the platform. Of
    the interval in which homes were registered (between two instants) nobody knows what was theirs."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    answer: dict[str, Any] | None = None
    wrong = ["nothing was worked out of the event"]
    while wrong and asyncio.get_running_loop().time() < deadline:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            answer = await asked(url, token, window.id)
        if answer is not None:
            rows = latest()
            since = ({key: row for key, row in rows.items() if key[1] >= at_ms} for at_ms in registered_ms)
            wrong = min((faults(answer, devices, some, window) for some in since), key=len)
        if wrong:
            await asyncio.sleep(EVERY_S)
    verdict.problems += wrong[:5]
    if answer is not None:
        figure = answer["figure"]
        verdict.performance = {
            "event": window.id, "revision": answer["revision"], "energy_wh": figure["energy_wh"],
            "asked_wh": figure["asked_wh"], "short_wh": figure["short_wh"], "because": figure["short_because"],
            "covered_pct": figure["covered_pct"], "value": figure["value"],
        }  # fmt: skip
