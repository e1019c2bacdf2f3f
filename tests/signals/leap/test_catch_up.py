"""Search: what no webhook brought is dispatched, late retries lose, outages end; and 10,000 evenings by chance."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from gateway.domain.errors import GatewayError
from gateway.domain.events.lifecycle import EventState
from gateway.signals.leap.catch_up import DAY_MS, WINDOW_MS, LeapCatchUp, windows
from gateway.signals.leap.plan import SlotPlan, make_plan
from gateway.signals.leap.slot_book import HINT_WAIT_MS, SlotBook, SlotKey
from gateway.signals.leap.slots import DispatchSlot
from gateway.transports.leap.account import LeapAccount
from gateway.transports.leap.client import LeapClient
from tests.signals.leap.bodies import HOUR, T0, body, one, slot, uid
from tests.signals.leap.rig import Rig, settings, signal_at

KEY = "key-0123456789abcdef"


@dataclass(slots=True)
class Peer:
    """The aggregator's search, from the contract: windows of at most 31 days, pages, a token that is a UUID."""

    items: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    page_size: int = 2
    troubles: list[tuple[int, str]] = field(default_factory=list)
    gone_after: int | None = None
    shift_after: int | None = None
    """After so many questions the first item is shown no more: pages shift."""

    async def search(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"code": "FORBIDDEN", "message": "no"}, status=403)
        told = await request.json()
        self.asked.append(told)
        if self.gone_after is not None and len(self.asked) > self.gone_after and "page_token" in told:
            self.gone_after = None
            return web.json_response({"code": "BAD_REQUEST", "message": "page token"}, status=400)
        if self.shift_after is not None and len(self.asked) > self.shift_after:
            self.items, self.shift_after = self.items[1:], None
        if self.troubles:
            status, text = self.troubles.pop(0)
            return web.Response(status=status, text=text, content_type="application/json")
        begin, end = (datetime.fromisoformat(told[name]) for name in ("start_date", "end_date"))
        if not 0 < (end - begin).total_seconds() <= 31 * 86_400 or set(told) - {
            "start_date", "end_date", "exclude_real_time_events", "exclude_voluntary_events", "page_token",
        }:  # fmt: skip
            return web.json_response({"code": "BAD_REQUEST", "message": "window"}, status=400)
        at = 0 if "page_token" not in told else int(told["page_token"][-4:])
        page = [one for one in self.items if self._within(one, begin, end)][at : at + self.page_size]
        more = len([one for one in self.items if self._within(one, begin, end)]) > at + self.page_size
        token = f"00000000-0000-4000-8000-{at + self.page_size:012d}" if more else None
        return web.json_response({"results": page, "next_page_token": token})

    def _within(self, item: Mapping[str, Any], begin: datetime, end: datetime) -> bool:
        return any(begin <= datetime.fromisoformat(one["start_time"]) < end for one in item["timeslots"])


@dataclass(slots=True)
class Search:
    """A signal, and the search of it."""

    rig: Rig
    peer: Peer
    catch_up: LeapCatchUp

    async def once(self) -> Any:
        now_ms = self.rig.clock.now().utc_ms
        return await self.catch_up.search(now_ms - 25 * HOUR, now_ms + 29 * DAY_MS, schedule=True)

    def scheduled(self) -> set[str]:
        entries = self.rig.world.dispatcher.entries()
        return {entry.request.id for entry in entries if entry.state is EventState.SCHEDULED}


@asynccontextmanager
async def search_at(directory: Path, *, key: str = KEY) -> AsyncIterator[Search]:
    peer = Peer()
    app = web.Application()
    app.router.add_post("/v2/dispatch/meter/search", peer.search)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = LeapClient(LeapAccount(environment="staging", key=SecretStr(key), url=url, timeout_s=5))
    async with signal_at(directory) as rig:
        catch_up = LeapCatchUp(settings(), client, rig.signal, clock=rig.clock, rng=random.Random(1))
        async with catch_up:
            yield Search(rig, peer, catch_up)
    await runner.cleanup()


def items(told: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body(told)["meter_dispatches"]
    return found


@pytest.mark.real_time
async def test_what_no_webhook_brought_is_found_page_by_page(tmp_path: Path) -> None:
    async with search_at(tmp_path) as s:
        s.peer.items = items({f"m{i}": [slot(f"e{i}", hours=(1 + i, 2 + i))] for i in range(4)})
        found = await s.once()
        assert s.scheduled() == {uid(f"e{i}") for i in range(4)}
        assert (found.pages, found.results, found.took["new"], found.hidden) == (2, 4, 4, 0)
        assert [set(told) >= {"page_token"} for told in s.peer.asked] == [False, True]
        again = await s.once()
        assert again.took["same"] == 4
        assert len(s.rig.asked) == 4


@pytest.mark.real_time
async def test_slot_that_shifting_pages_hide_is_found_by_a_search_that_follows_soon(tmp_path: Path) -> None:
    async with search_at(tmp_path) as s:
        s.peer.items = items({f"m{i}": [slot(f"e{i}", hours=(1 + i, 2 + i))] for i in range(4)})
        s.peer.shift_after = 1
        first = await s.once()
        assert (first.took["new"], s.scheduled()) == (3, {uid(f"e{i}") for i in (0, 1, 3)})
        assert s.rig.signal.wants_search.is_set(), "what was new may have moved the pages"
        assert (await s.once()).took["new"] == 1
        assert s.scheduled() == {uid(f"e{i}") for i in range(4)}
        last = await s.once()
        assert (last.took["new"], last.took["changed"], s.rig.signal.wants_search.is_set()) == (0, 0, False)
        assert len(s.rig.asked) == 4, "each was submitted once"


@pytest.mark.real_time
async def test_search_cancels_changes_and_outlasts_a_late_retry(tmp_path: Path) -> None:
    async with search_at(tmp_path) as s:
        old = body({"m0": [slot("e0", energy_kw=3)]})
        await s.rig.post(old)
        s.rig.clock.advance(s=5)
        s.peer.items = items({"m0": [slot("e0", cancelled=True)]})
        await s.once()
        assert s.scheduled() == set()
        s.rig.clock.advance(s=5)
        await s.rig.post(old)
        assert s.scheduled() == set()
        s.rig.clock.advance(s=5)
        await s.once()
        assert (s.scheduled(), s.rig.signal.hints) == (set(), 0)


@pytest.mark.real_time
async def test_what_search_hides_is_counted_and_goes_on(tmp_path: Path) -> None:
    async with search_at(tmp_path) as s:
        await s.rig.post(body({"m0": [slot("e0")], "m1": [slot("e1")]}))
        s.rig.clock.advance(s=5)
        s.peer.items = items({"m0": [slot("e0")]})
        assert (await s.once()).hidden == 1
        assert len(s.scheduled()) == 1
        assert {s_.name: s_.value for s_ in s.catch_up.samples()}["gateway_leap_hidden_slots"] == 1


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [((503, '{"code":"SERVICE_UNAVAILABLE","message":"x"}'), "later"), ((429, ""), "later"), ((200, "<html>"), "later"),
     ((403, '{"code":"FORBIDDEN","message":"x"}'), "after_change")],
)  # fmt: skip
async def test_an_outage_is_told_and_over_with_the_next_search(
    tmp_path: Path, trouble: tuple[int, str], outcome: str
) -> None:
    async with search_at(tmp_path) as s:
        s.peer.items = items({"m0": [slot("e0")]})
        s.peer.troubles = [trouble]
        with pytest.raises(GatewayError):
            await s.once()
        assert s.catch_up.failing
        s.rig.clock.advance(s=1_000)
        assert any("not searched for" in text for text in s.catch_up.warnings())
        assert sum(m.value for m in s.catch_up.samples() if dict(m.labels).get("outcome") == outcome) == 1
        await s.once()
        assert (s.catch_up.failing, s.catch_up.warnings(), s.catch_up.age_s) == ("", [], 0)
        assert s.scheduled() == {uid("e0")}


@pytest.mark.real_time
async def test_a_list_that_changes_under_the_reader_is_read_anew(tmp_path: Path) -> None:
    async with search_at(tmp_path) as s:
        s.peer.items = items({f"m{i}": [slot(f"e{i}", hours=(1 + i, 2 + i))] for i in range(4)})
        s.peer.gone_after = 1
        found = await s.once()
        assert len(s.peer.asked) == 4
        assert found.results == 2 + 4
        assert s.scheduled() == {uid(f"e{i}") for i in range(4)}


def test_windows_cover_a_span_with_a_margin_and_none_is_longer_than_a_search_may_be() -> None:
    for days in (0.5, 29, 31, 62, 400):
        end = T0 + round(days * DAY_MS)
        found = windows(T0, end)
        assert found[0][0] == T0 - DAY_MS
        assert found[-1][1] == end + DAY_MS
        assert all(b - a <= WINDOW_MS for a, b in found)
        assert all(later[0] <= earlier[1] - DAY_MS for earlier, later in pairwise(found))


# -- the rules, by chance ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class Trial:
    """An aggregator that changes slots, posts late and twice or never, and whose search hides some and has outages."""

    rng: random.Random
    truth: dict[str, DispatchSlot] = field(default_factory=dict)
    post: list[tuple[int, DispatchSlot]] = field(default_factory=list)

    def change(self, now_ms: int) -> None:
        name = f"e{self.rng.randrange(4)}"
        start = 1 + self.rng.random() * 3
        self.truth[name] = one(
            name, f"m{name}", hours=(start, start + 1), cancelled=self.rng.random() < 0.2,
            energy_kw=self.rng.choice([None, 2.0, 4.0]),
        )  # fmt: skip
        for _ in range(self.rng.choice([0, 1, 1, 2, 3])):
            self.post.append((now_ms + round(self.rng.expovariate(1 / 600_000)), self.truth[name]))

    def shown(self) -> list[DispatchSlot]:
        return [found for found in self.truth.values() if self.rng.random() < 0.8]


def planned_by(plan: SlotPlan) -> set[tuple[str, tuple[int, int], float | None]]:
    """Meter, span and power of everything that is planned."""
    return {
        (meter, span, kw)
        for event in plan.events
        for meter, row in zip(event.meters, event.kw, strict=True)
        for span, kw in zip(event.spans_ms, row, strict=True)
    }


def story(seed: int) -> Counter[str]:
    """One evening. What search showed of a slot before its start is planned at once, and no webhook undoes that before
    the next search, or `HINT_WAIT_MS` without one."""
    trial, book, events = Trial(random.Random(seed)), SlotBook(), dict[str, int]()
    counts: Counter[str] = Counter()
    searched: dict[SlotKey, tuple[DispatchSlot, int]] = {}
    posted: set[SlotKey] = set()
    now = T0
    for _ in range(14):
        now += round(trial.rng.expovariate(1 / 60_000)) + 1
        due = sorted((item for item in trial.post if item[0] <= now), key=lambda item: item[0])
        trial.post = [item for item in trial.post if item[0] > now]
        for at, told in due:
            posted.add(told.key)
            counts[book.webhook(told, at)] += 1
        if trial.rng.random() < 0.5:
            trial.change(now)
        if trial.rng.random() < 0.4:
            for told in trial.shown():
                now += 1
                book.search(told, now)
                searched[told.key] = (told, now)
        counts["by hint"] += book.settle(now)
        plan = make_plan(book, events, now)
        for known, event in plan.slots:
            book.put(known, event)
        events |= {event.id: event.end_ms for event in plan.events}
        planned = planned_by(plan)
        for key, (told, asked_ms) in searched.items():
            if now - asked_ms >= HINT_WAIT_MS or told.end_ms <= now:
                continue
            wanted = (told.owner, (told.start_ms, told.end_ms), told.energy_kw)
            if told.cancelled:
                assert told.owner not in {meter for meter, *_ in planned}, seed
            else:
                assert wanted in planned, seed
                counts["planned"] += 1
                counts["planned without a webhook"] += key not in posted
    # the last word is a search that hides nothing
    now += 1_000_000
    for told in trial.truth.values():
        book.search(told, now)
        found = book.get(told.key)
        assert found is not None
        assert found.slot.cancelled == told.cancelled, seed
        assert told.cancelled or found.slot.energy_kw == told.energy_kw, seed
    for known in book:
        counts["hidden"] += book.hidden("meter", known.slot.start_ms, known.slot.start_ms + 1, now + 1)
    return counts


def test_in_ten_thousand_evenings_what_search_showed_before_its_start_is_dispatched() -> None:
    total: Counter[str] = Counter()
    for seed in range(10_000):
        total += story(seed)
    # every rule had its part
    assert min(total[name] for name in ("planned", "planned without a webhook", "by hint", "hint", "hidden")) > 1_000
