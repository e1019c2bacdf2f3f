"""Killed in mid-event, taken up by another release: forwards (an upgrade) and backwards (a rollback).

Judged from the homes and the platform. What one release stored, the other must read, or a home stays under control.
"""

import json
from pathlib import Path

import pytest

from tests.e2e.rig import event, eventually, now_ms, running, utc
from tests.releases.street import Street, street
from tests.releases.trees import HERE, RELEASES, TreeDaemon, unpacked

pytestmark = pytest.mark.e2e

FIRMWARE = 4
PRODUCTS = ("foxess-h3", "fronius-gen24", "sonnen-v2")
LENGTH_S = 5
SOON = {"intervals": {"length_s": LENGTH_S, "grace_s": 1}}
TARGET_W = 28_000.0
"""Four fifths of what the homes can: everybody is needed."""
MADE = sorted(path.parent.name for path in RELEASES.glob("*/gateway.tar.gz"))
WAYS = ("back", "forth")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("release", MADE)
async def test_gateway_killed_in_mid_event_is_followed_by_another_release_that_hands_all_back(
    tmp_path: Path, release: str, way: str
) -> None:
    old = unpacked(release, tmp_path)
    first, second = (HERE, old) if way == "back" else (old, HERE)
    async with street(tmp_path, firmware=FIRMWARE, products=PRODUCTS) as s:
        before = s.daemon(first, change=SOON)
        await s.enroll(before)
        async with running(before):
            await before.ready()
            await s.heard(before)
            await dispatched(s, before)
            rows = len(s.book)
            await before.child.kill()
        assert len(s.steered) == s.n
        assert s.settings() != s.before, "what control changed on the polled homes is to be put back"
        after = s.daemon(second, change=SOON, http_port=before.http_port)
        async with running(after):
            await taken_up(s, after)
            await handed_back(s, after)
            await eventually(lambda: len(s.book) >= rows + s.n, "intervals go on", alive=after.child)
            assert await after.stop() == 0
        judged(s, after)


async def dispatched(s: Street, daemon: TreeDaemon) -> None:
    """An event that is over, one that an operator cancelled and one that runs, an opt-out for another day, and
    intervals of all at the platform."""
    now = now_ms()
    for name, start_ms, end_ms, target_w in (
        ("over", now, now + 3_000, TARGET_W),
        ("called-off", now + 2_000, now + 3_600_000, TARGET_W),
        ("running", now + 3_000, now + 3_600_000, TARGET_W),
    ):
        wanted = event(name, start_ms=start_ms, end_ms=end_ms, target_w=target_w)
        assert (await daemon.post("/v1/dispatch-events", wanted)).status == 200
        if name == "called-off":
            assert (await daemon.ask("DELETE", f"/v1/dispatch-events/{name}")).status == 200
    hold = {"id": "later", "reason": "opt_out", "group": {"ids": [s.fleet.devices.homes.ids[0]]},
            "since": "2099-01-01T00:00:00Z", "until": "2099-01-02T00:00:00Z"}  # fmt: skip
    assert (await daemon.post("/v1/holds", hold)).status == 200
    await daemon.until("/v1/dispatch-events/over", lambda r: r.body["state"] == "completed", "an event is over")
    await s.all_steered(daemon)
    await eventually(lambda: s.fleet_w > 0.9 * TARGET_W, "the target", alive=daemon.child)
    await eventually(
        lambda: {device for device, _ in s.book.latest()} >= set(s.fleet.devices.homes.ids), "intervals of everybody",
        alive=daemon.child,
    )  # fmt: skip


async def taken_up(s: Street, daemon: TreeDaemon) -> None:
    """The event goes on from where it was, with the same homes; nothing has been forgotten."""
    await daemon.until(
        "/v1/dispatch-events/running",
        lambda r: r.body["state"] == "active" and (r.body["delivered_w"] or 0) > 0.9 * TARGET_W,
        "the event goes on",
    )
    assert len(s.steered) == s.n
    over = (await daemon.ask("GET", "/v1/dispatch-events/over")).body
    assert (over["state"], len(over["members"]), len(over["occurrences"])) == ("completed", s.n, 1)
    assert (await daemon.ask("GET", "/v1/dispatch-events/called-off")).body["state"] == "cancelled"
    holds = (await daemon.ask("GET", "/v1/holds")).body["holds"]
    assert [(hold["id"], hold["since"]) for hold in holds] == [("later", "2099-01-01T00:00:00Z")]


async def handed_back(s: Street, daemon: TreeDaemon) -> None:
    told = await daemon.tree.does("dispatch", "cancel", "running", "--url", daemon.url)
    assert json.loads(told)["outcome"] == "accepted"
    await s.all_released(daemon)
    await daemon.until(
        "/v1/devices?limit=1000", lambda r: {d["held"] for d in r.body["devices"]} == {"free"}, "the gateway knows"
    )
    assert s.settings() == s.before


def judged(s: Street, after: TreeDaemon) -> None:
    """Every interval with one content at both receivers, none left out of homes that keep what they measured; nothing
    went wrong on the way."""
    ids = s.fleet.devices.homes.ids
    for book in (s.platform.by_http, s.platform.by_mqtt):
        assert (book.conflicting, book.rejected) == (0, {})
        starts: dict[str, list[int]] = {name: [] for name in ids}
        for device, start_ms in sorted(book.latest()):
            starts[device].append(start_ms)
        for name in ids[:FIRMWARE]:
            assert starts[name] == list(range(starts[name][0], starts[name][-1] + 1, LENGTH_S * 1000)), name
        assert all(starts.values())
    assert (s.platform.stats.keys_reused, s.platform.stats.bad_requests) == (0, 0)
    assert after.faults_logged() == []


@pytest.mark.parametrize("release", MADE)
async def test_release_before_territories_starts_beside_them_and_leaves_them_for_the_next(
    tmp_path: Path, release: str
) -> None:
    old = unpacked(release, tmp_path)
    async with street(tmp_path, firmware=1, products=()) as s:
        new = s.daemon(HERE, change=SOON)
        await s.enroll(new)
        (name,) = s.fleet.devices.homes.ids
        async with running(new):
            await new.ready()
            device = (await new.ask("GET", f"/v1/devices/{name}")).body["device"]
            row = device | {"postcode": "95404", "county": "Sonoma"}
            reply = await new.ask(
                "POST", "/v1/devices", body=json.dumps(row).encode(), kind="application/x-ndjson"
            )  # fmt: skip
            assert (reply.status, reply.body["enrolled"]) == (200, 1)
            storm = {"id": "later", "reason": "outage", "territory": {"postcodes": ["95404"]}, "reserve_pct": 80,
                     "from": utc(now_ms() + 3_600_000), "until": utc(now_ms() + 7_200_000)}  # fmt: skip
            assert (await new.post("/v1/exclusions", storm)).status == 200
            await new.child.kill()
        former = s.daemon(old, change=SOON, http_port=new.http_port)
        async with running(former):
            await former.ready()
            assert (await former.ask("GET", "/v1/holds")).body["holds"] == []
            assert [one["device"]["id"] for one in (await former.ask("GET", "/v1/devices")).body["devices"]] == [name]
            assert await former.stop() == 0
        again = s.daemon(HERE, change=SOON, http_port=new.http_port)
        async with running(again):
            await again.ready()
            (found,) = (await again.ask("GET", "/v1/exclusions")).body["exclusions"]
            assert (found["id"], found["devices"], found["reserve_pct"]) == ("later", 1, 80)
            assert (await again.ask("GET", f"/v1/devices/{name}")).body["device"]["county"] == "Sonoma"
            assert await again.stop() == 0
        assert former.faults_logged() + again.faults_logged() == []
