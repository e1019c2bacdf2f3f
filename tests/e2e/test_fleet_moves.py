"""A fleet of polled batteries in an event: a sixth of it gets other addresses, a sixth becomes other products, a sixth
goes, and the gateway is killed in the middle of that. Judged by the batteries at both places and by REST.

`GATEWAY_MOVES` in the environment: how many devices, 24 unless it is given.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from simulators.battery import Batteries
from simulators.faces.catalogue import make_face
from simulators.faces.foxess_h3 import FEED_IN_FIRST, WORK_MODE, FoxessH3
from simulators.faces.fronius_gen24 import FroniusGen24
from simulators.faces.plant import Connection, Face, Plant
from simulators.faces.sonnen import TIME_OF_USE
from simulators.faces.sonnen_v2 import SonnenV2
from tests.builders.homes import homes
from tests.e2e.rig import CEILING_S, PROFILES, Daemon, event, eventually, now_ms, running, utc
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e

DEVICES = int(os.environ.get("GATEWAY_MOVES", "24"))
RATED_W, EACH_W = 5_000.0, 4_200.0
STEP_S = 0.1
LENGTH_S, LIVE_S, ENERGY_S = 10, 1, 2
# What nobody may have measured: the ends of a place, and what a gateway that is killed had not written yet.
PLACE_S, KILL_S = 2 * (LIVE_S + ENERGY_S), 10
# The event lasts until every new battery has discharged this.
LASTS_WH = 20.0
# Power between two readings is taken as a straight line, and a counter has steps.
MORE_WH = 2.0 + LIVE_S * 5_000 / 3600
# In this order a product becomes the one before it.
PRODUCTS = (FoxessH3.profile, FroniusGen24.profile, SonnenV2.profile)
LEASE_S = 120.0  # the longest of theirs
TOKEN = "DEVICE_TOKEN"
TURN = 1


def _hurried_profiles(directory: Path) -> Path:
    """The products, asked for their energy every few seconds: a story of seconds has some to count."""
    hurried = directory / "profiles"
    hurried.mkdir()
    for profile in PRODUCTS:
        text, count = re.subn(
            r"live_s: \d+, energy_s: \d+",
            f"live_s: {LIVE_S}, energy_s: {ENERGY_S}",
            (PROFILES / f"{profile}.yaml").read_text(encoding="utf-8"),
        )
        assert count == 1
        (hurried / f"{profile}.yaml").write_text(text, encoding="utf-8")
    return hurried


def _taken(profile: str, plant: Plant, index: int) -> Face:
    """The battery of a device that is registered first; its owner has set what no new battery has."""
    plant.reserve_pct = 10 + index % 9
    if profile == FroniusGen24.profile:
        return FroniusGen24(plant, revert_s=100 + index)
    if profile == SonnenV2.profile:
        return SonnenV2(plant, mode=TIME_OF_USE)
    fox = FoxessH3(plant)
    fox.write(247, 6, WORK_MODE, [FEED_IN_FIRST])
    return fox


def _new(profile: str, plant: Plant) -> Face:
    """A battery as it leaves the factory."""
    plant.reserve_pct = 20
    return make_face(profile, plant)


@dataclass(slots=True, kw_only=True)
class Place:
    """A battery where it answers; `before` and `counted_wh`: its settings and its counter before anybody steered it."""

    face: Face
    connection: Connection
    before: Mapping[str, float]
    counted_wh: float
    reserve_pct: float

    @property
    def controlled(self) -> bool:
        return self.face.controlled

    @property
    def discharged_wh(self) -> float:
        """What it discharged since it stands there."""
        return self.face.plant.discharged_wh - self.counted_wh

    def row(self, name: str) -> dict[str, Any]:
        """What the inventory says of a device here."""
        return {
            "id": name, "profile": self.face.profile, "site": f"site-{name}", "capacity_wh": 10_000,
            "discharge_w_max": RATED_W, "charge_w_max": RATED_W, "inverter_w_max": RATED_W,
            "reserve_pct": self.reserve_pct, "export_allowed": True, "grid_charge_allowed": True,
            "site_import_w_max": "unlimited", "site_export_w_max": "unlimited", "fuse_protected": True,
            "address": self.connection.url,
            "secret": f"env:{TOKEN}" if self.connection.token else "", "experimental": True,
        }  # fmt: skip


class Estate:
    """All batteries, old and new, and who stays, moves and goes. Half of the devices stay; the others in turn get
    another address, become another product, or are removed."""

    def __init__(self, devices: int) -> None:
        self.names = [f"home-{i:03}" for i in range(devices)]
        movers = self.names[devices // 2 :]
        self.moved, self.turned, self.removed = movers[0::3], movers[1::3], movers[2::3]
        self.stay = self.names[: devices // 2]
        self.batteries = Batteries(
            homes(
                2 * devices, soc_start_pct=70.0, load_base_w=0.0, capacity_wh=10_000.0, discharge_w_max=RATED_W,
                charge_w_max=RATED_W,
            ),
            guard=False, time_s=12 * 3600.0,
        )  # fmt: skip
        self.old: dict[str, Place] = {}
        self.new: dict[str, Place] = {}
        self.freed: set[str] = set()
        self.doubled: set[str] = set()
        self.watched = False

    @property
    def relocated(self) -> list[str]:
        return self.moved + self.turned

    @property
    def places(self) -> list[Place]:
        return [*self.old.values(), *self.new.values()]

    def at_last(self, name: str) -> Place:
        return self.new.get(name, self.old[name])

    async def start(self) -> None:
        """Listen everywhere."""
        for i, name in enumerate(self.names):
            # shifted by a mover's turn, so that every product is moved, turned and removed
            product = (i + i // 3) % len(PRODUCTS)
            self.old[name] = await self._place(_taken(PRODUCTS[product], Plant(self.batteries, i), i))
            if name in self.relocated:
                turned = (product + TURN * (name in self.turned)) % len(PRODUCTS)
                plant = Plant(self.batteries, len(self.names) + i)
                self.new[name] = await self._place(_new(PRODUCTS[turned], plant))

    async def _place(self, face: Face) -> Place:
        connection = await face.start()
        counted_wh = face.plant.discharged_wh
        return Place(
            face=face,
            connection=connection,
            before=face.settings(),
            counted_wh=counted_wh,
            reserve_pct=face.plant.reserve_pct,
        )

    async def run(self) -> None:
        """Time, as long as this is not cancelled."""
        while True:
            await asyncio.sleep(STEP_S)
            for place in self.places:
                place.face.step(STEP_S)
                # homes that nobody steers rest, so that all energy is the event's
                self.batteries.inhibited[place.face.plant.index] = not place.controlled
            self.batteries.step(STEP_S)
            if self.watched:
                self.freed |= {name for name in self.stay if not self.old[name].controlled}
            self.doubled |= {name for name, new in self.new.items() if new.controlled and self.old[name].controlled}

    def power_w(self) -> float:
        return sum(place.face.plant.battery_w for place in self.places)

    def unlike_before(self) -> dict[str, Any]:
        """Who has other settings than before, and which."""
        pairs = [(name, place) for where in (self.old, self.new) for name, place in where.items()]
        return {
            f"{name} {place.connection.url}": (place.before, place.face.settings())
            for name, place in pairs
            if place.face.settings() != place.before
        }


@asynccontextmanager
async def _estate(devices: int) -> AsyncIterator[Estate]:
    estate = Estate(devices)
    await estate.start()
    async with asyncio.TaskGroup() as group:
        time = group.create_task(estate.run(), name="world")
        try:
            yield estate
        finally:
            time.cancel()
            for place in estate.places:
                await place.face.stop()


async def _import(daemon: Daemon, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    body = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    reply = await daemon.ask("POST", "/v1/devices", body=body, kind="application/x-ndjson")
    assert (reply.status, reply.body["rejected_total"]) == (200, 0), reply
    return dict(reply.body)


async def _intervals(daemon: Daemon, since_ms: int, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The newest revisions of these devices, each by its start."""
    path = f"/v1/intervals?from={utc(since_ms)}&to={utc(now_ms() + 60_000)}&format=ndjson".replace("+", "%2B")
    reply = await daemon.ask("GET", path)
    assert reply.status == 200, reply
    # one line alone is JSON already
    found = [reply.body] if isinstance(reply.body, dict) else [json.loads(line) for line in reply.body.splitlines()]
    return {name: [one for one in found if one["device"] == name] for name in names}


async def _connections(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    return list((await daemon.ask("GET", f"/v1/devices/{name}/connections")).body["connections"])


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


async def test_fleet_is_moved_turned_and_removed_in_mid_event_through_a_kill(tmp_path: Path) -> None:
    async with standin_process(tmp_path) as broker, _estate(DEVICES) as estate:
        change = {
            "profiles_dir": str(_hurried_profiles(tmp_path)),
            "intervals": {"length_s": LENGTH_S, "grace_s": 1},
            "control": {"fleet_w_per_s": 1_000_000, "release_spread_s": 3},
        }
        daemon = Daemon(tmp_path, broker.port, change)
        daemon.child.env[TOKEN] = next(p.connection.token for p in estate.places if p.connection.token)
        async with running(daemon):
            await _Story(daemon, estate).tell()


@dataclass(slots=True)
class _Story:
    daemon: Daemon
    estate: Estate
    began_ms: int = 0
    dark_ms: tuple[int, int] = (0, 0)
    moved_ms: dict[str, int] = field(default_factory=dict)

    async def tell(self) -> None:
        await self.take()
        await self.move()
        await self.judge_event()
        await self.hand_back()
        await self.judge_connections()
        await self.judge_intervals()

    async def take(self) -> None:
        """Register everybody and put them into an event."""
        estate, daemon = self.estate, self.daemon
        self.began_ms = now_ms()
        await _import(daemon, (place.row(name) for name, place in estate.old.items()))
        target_w = EACH_W * len(estate.names)
        asked = event("evening", start_ms=now_ms(), end_ms=now_ms() + 900_000, target_w=target_w)
        assert (await daemon.post("/v1/dispatch-events", asked)).status == 200
        await self._soon(lambda: all(place.controlled for place in estate.old.values()), "everybody under control")
        await self._soon(lambda: abs(estate.power_w() / target_w - 1) < 0.05, "the event's power")
        estate.watched = True

    async def move(self) -> None:
        """All moves in one file and the removals; a kill once some of them are done and some are not."""
        estate, daemon = self.estate, self.daemon
        file = await _import(daemon, (place.row(name) for name, place in estate.new.items()))
        assert file["departing"] == len(estate.new)
        killed_ms = now_ms()
        await daemon.child.kill()
        assert any(estate.old[name].controlled for name in estate.new), "everybody had left before the kill"
        await daemon.start()
        self.dark_ms = (killed_ms, now_ms())
        for name in estate.removed:
            assert (await daemon.ask("DELETE", f"/v1/devices/{name}")).status in (200, 202)

    async def judge_event(self) -> None:
        """The old places are free and as they were; the event has everybody who is still there."""
        estate, daemon = self.estate, self.daemon
        leaving = estate.relocated + estate.removed
        await self._soon(lambda: not any(estate.old[name].controlled for name in leaving), "all old places free")
        await self._departed()
        for name in leaving:
            assert estate.old[name].face.settings() == estate.old[name].before, name
        await self._soon(lambda: all(place.controlled for place in estate.new.values()), "the new places")
        await self._soon(lambda: all(place.discharged_wh > LASTS_WH for place in estate.new.values()), "its energy")
        at_most_w = RATED_W * (len(estate.names) - len(estate.removed))
        await self._soon(lambda: estate.power_w() > 0.95 * at_most_w, "the power of those that are left")
        devices = (await daemon.ask("GET", "/v1/devices?limit=1")).body["total"]
        assert devices == len(estate.names) - len(estate.removed)
        assert not estate.freed, "left the event though nobody moved them"

    async def _departed(self) -> None:
        """Until nobody departs. One that the kill met between its release and the note of it waits for a lease."""
        deadline = asyncio.get_running_loop().time() + LEASE_S + CEILING_S
        while (reply := await self.daemon.ask("GET", "/v1/departures")).body["total"]:
            assert asyncio.get_running_loop().time() < deadline, reply
            await asyncio.sleep(0.1)

    async def hand_back(self) -> None:
        estate = self.estate
        estate.watched = False
        assert (await self.daemon.ask("DELETE", "/v1/dispatch-events/evening")).status == 200
        await self._soon(lambda: not any(place.controlled for place in estate.places), "everybody free")
        await self._soon(lambda: not estate.unlike_before(), "everybody's own settings")
        assert not estate.doubled, "steered at two places at a time"

    async def judge_intervals(self) -> None:
        """Every interval once and none left out, with the energy of both batteries as far as it was measured."""
        names, lacking = self.estate.names, ["not asked yet"]
        deadline = asyncio.get_running_loop().time() + CEILING_S
        while lacking:
            found = await _intervals(self.daemon, self.began_ms - 60_000, names)
            lacking = [why for name in names for why in self._lacks(name, found[name])]
            assert not lacking or asyncio.get_running_loop().time() < deadline, "\n".join(lacking)
            await asyncio.sleep(0.2)

    def _lacks(self, name: str, found: Sequence[Mapping[str, Any]]) -> list[str]:
        """What the intervals of a device lack yet; fails on an interval that is there twice and on energy that no
        battery discharged."""
        old, new = self.estate.old[name], self.estate.new.get(name)
        starts = np.array([_ms(one["start"]) for one in found], dtype=np.int64)
        told_wh = np.array([one["discharge_wh"] or 0.0 for one in found])
        true_wh = old.discharged_wh + (new.discharged_wh if new else 0.0)
        said = f"{name}: {told_wh.tolist()} of {true_wh:.1f} Wh, {old.face.profile}"
        said += f", then {new.discharged_wh:.1f} Wh of {new.face.profile}" if new else ""
        assert np.all(np.diff(starts) > 0), f"an interval twice: {said}"
        assert told_wh.sum() <= true_wh + MORE_WH, f"more than was discharged: {said}"
        lacks = [f"intervals are missing: {said} {starts}"] if self._missing(starts) else []
        unmeasured_s = KILL_S + (self.dark_ms[1] - self.dark_ms[0]) / 1000 + (2 if new else 1) * PLACE_S
        if told_wh.sum() < true_wh - unmeasured_s * RATED_W / 3600:
            lacks.append(f"energy is missing: {said}")
        if new is not None:
            there_wh = told_wh[starts > self.moved_ms[name] - LENGTH_S * 1000].sum()
            if there_wh < new.discharged_wh - PLACE_S * RATED_W / 3600:
                lacks.append(f"energy of the new place is missing: {said}")
        return lacks

    def _missing(self, starts: npt.NDArray[np.int64]) -> list[int]:
        """Starts between the first and the last that are not there, but for intervals in which nobody was asked: from
        the last reading before the kill until the first of a place that is connected anew."""
        if not len(starts):
            return []
        every = np.arange(starts.min(), starts.max(), LENGTH_S * 1000)
        gone_ms = self.dark_ms[0] - (LIVE_S + ENERGY_S) * 1000, self.dark_ms[1] + PLACE_S * 1000
        dark = (every >= gone_ms[0]) & (every + LENGTH_S * 1000 <= gone_ms[1])
        return [int(start) for start in every[~dark] if start not in starts]

    async def judge_connections(self) -> None:
        """Both places of who moved, one after the other."""
        estate = self.estate
        for name in estate.relocated:
            first, second = await _connections(self.daemon, name)
            assert (first["address"], first["ended"]) == (estate.old[name].connection.url, "moved")
            assert (second["address"], second["ended"]) == (estate.new[name].connection.url, None)
            assert self.began_ms <= _ms(first["since"]) < _ms(first["until"]) <= _ms(second["since"])
            assert second["until"] is None
            self.moved_ms[name] = _ms(second["since"])
        for name in estate.removed:
            (only,) = await _connections(self.daemon, name)
            assert (only["address"], only["ended"]) == (estate.old[name].connection.url, "removed")

    async def _soon(self, condition: Callable[[], bool], what: str) -> None:
        await eventually(condition, what, alive=self.daemon.child)
