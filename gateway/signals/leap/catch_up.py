"""Searches the aggregator's dispatch again and again: what a webhook did not bring, and what of it was outdated.

Each page goes through the inbox as a webhook does. A search covers what runs, what has just been changed and what is
to come, with a margin: whether the window is by the start of a slot or by overlap is not public. What it does not show
is counted and not cancelled, for it may hide it.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.clock import Clock
from gateway.domain.errors import GatewayError, Retry, pause_ceiling_s, retry_of
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Part
from gateway.schemas.interval_rows import rfc3339
from gateway.signals.leap.settings import LeapSignalSettings
from gateway.signals.leap.signal import LeapSignal
from gateway.signals.leap.slot_book import Took
from gateway.signals.leap.slots import Level
from gateway.transports.leap.client import DISPATCH_PAGES, LeapClient
from gateway.transports.leap.errors import PagesChanged

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
BEHIND_MS = 25 * 3_600_000
"""No slot is longer than a day."""
AHEAD_MS = 29 * DAY_MS
WINDOW_MS = 31 * DAY_MS
"""The longest window of one search."""
MARGIN_MS = DAY_MS
SPAN_MS_MAX = 400 * DAY_MS
PACE_S, HINT_PACE_S = 60.0, 15.0
"""How often search may be asked; oftener where a webhook waits for its word."""
BASE_S, CAP_S = 5.0, 300.0
TRIES = 3
LATE = 3
"""Dispatch is overdue when no search ended well for so many times its schedule."""

OUTCOMES = ("complete", "later", "after_change", "never")
AGE = gauge("gateway_leap_search_age_seconds", "Since the newest search of dispatch that ended well, or the start.")
SEARCHES = counter("gateway_leap_searches", "Searches of dispatch, by how they ended.", outcome=OUTCOMES)
HIDDEN = gauge("gateway_leap_hidden_slots", "Live slots that the newest search did not show though it covered them.")


@dataclass(slots=True, kw_only=True)
class SearchFound:
    """What a search found: `pages` and `results` of them, `took`: what their slots did, `hidden`: live slots that it
    did not show."""

    pages: int = 0
    results: int = 0
    hidden: int = 0
    took: dict[str, int] = field(default_factory=dict)


def windows(from_ms: int, to_ms: int) -> list[tuple[int, int]]:
    """The windows that cover a span, each of at most 31 days, with a margin on both sides and between them."""
    step_ms = WINDOW_MS - 2 * MARGIN_MS
    begins = range(from_ms, max(to_ms, from_ms + 1), step_ms)
    return [(at - MARGIN_MS, min(at + step_ms, to_ms) + MARGIN_MS) for at in begins]


class LeapCatchUp(Part):
    """Searches on a schedule. `failing`: why the newest search did not end well, "" = it did; `searched_ms`: when the
    newest that did was asked, UTC, None = none has."""

    service = "leap-catch-up"
    component = "leap"

    def __init__(
        self, settings: LeapSignalSettings, client: LeapClient, signal: LeapSignal, *, clock: Clock, rng: random.Random
    ) -> None:  # fmt: skip
        self.failing = ""
        self.searched_ms: int | None = None
        self.hidden = 0
        self._settings = settings
        self._client = client
        self._signal = signal
        self._clock = clock
        self._rng = rng
        self._turn = asyncio.Lock()
        self._began_mono_ms = clock.mono_ms()
        self._well_mono_ms: int | None = None
        self._counts = dict.fromkeys(OUTCOMES, 0)

    async def close(self) -> None:
        await self._client.close()

    async def run(self) -> None:
        """Search now, on schedule, and when a webhook says something new."""
        failures = 0
        while True:
            now_ms = self._clock.now().utc_ms
            try:
                await self.search(now_ms - BEHIND_MS, now_ms + AHEAD_MS, schedule=True)
            except (GatewayError, OSError) as error:
                retry = Retry.LATER if isinstance(error, OSError) else retry_of(error)
                if retry is Retry.NEVER:
                    raise
                ceiling_s = pause_ceiling_s(retry, failures, base_s=BASE_S, cap_s=CAP_S)
                asked_s = error.after_s if isinstance(error, GatewayError) else 0.0
                await asyncio.sleep(max(asked_s, ceiling_s * self._rng.uniform(0.5, 1.0)))
                failures += 1
                continue
            failures = 0
            await self._due()

    async def _due(self) -> None:
        """Wait for the next search."""
        settings, signal = self._settings, self._signal
        try:
            async with asyncio.timeout(settings.search_every_s):
                await asyncio.sleep(HINT_PACE_S)
                await signal.wants_search.wait()
                if not signal.hints:
                    await asyncio.sleep(PACE_S - HINT_PACE_S)
        except TimeoutError:
            return

    async def search(self, from_ms: int, to_ms: int, *, schedule: bool = False) -> SearchFound:
        """Search a span (UTC ms), and bring events to what is found. `schedule`: in one window. Raises GatewayError and
        OSError."""
        async with self._turn:
            self._signal.wants_search.clear()
            before, found = self._signal.took, SearchFound()
            asked_ms = self._signal.inbox.stamp(self._clock.now().utc_ms)
            spans = [(from_ms, to_ms)] if schedule else windows(from_ms, to_ms)
            try:
                for level in self._settings.levels:
                    for begin_ms, end_ms in spans:
                        await self._window(level, begin_ms, end_ms, found)
                await self._signal.caught_up()
                for level in self._settings.levels:
                    told = await self._signal.ask(
                        {"ask": "searched", "level": level, "from_ms": from_ms, "to_ms": to_ms, "asked_ms": asked_ms}
                    )
                    found.hidden += int(told["hidden"])
            except (GatewayError, OSError) as error:
                self._failed(error)
                raise
            after = self._signal.took
            found.took = {word.value: after[word] - count for word, count in before.items()}
            news = found.took[Took.NEW] or found.took[Took.CHANGED] or found.hidden != self.hidden
            if news and found.pages > len(self._settings.levels) * len(spans):
                # pages of a list that has changed may have shifted: the next search shows what that hid
                self._signal.wants_search.set()
            if schedule:
                self._ended(asked_ms, found)
            return found

    async def _window(self, level: Level, begin_ms: int, end_ms: int, found: SearchFound) -> None:
        for attempt in range(TRIES):
            try:
                async for page, asked_ms in self._pages(level, begin_ms, end_ms):
                    found.pages += 1
                    results = page.get("results")
                    found.results += len(results) if isinstance(results, list) else 0
                    raw = await asyncio.to_thread(orjson.dumps, {"results": results})
                    await self._signal.keep_page(f"{level}_search", asked_ms, raw)
                return
            except PagesChanged as error:
                # what was read so far is true, but it is not all
                log.info("a search is begun anew", extra={"error": str(error)})
                if attempt == TRIES - 1:
                    raise

    async def _pages(self, level: Level, begin_ms: int, end_ms: int) -> AsyncIterator[tuple[dict[str, Any], int]]:
        """Pages of a window, each with when it was asked for."""
        body = {
            "start_date": rfc3339(begin_ms), "end_date": rfc3339(end_ms),
            "exclude_real_time_events": self._settings.exclude_real_time,
            "exclude_voluntary_events": self._settings.exclude_voluntary,
        }  # fmt: skip
        asked_ms = self._signal.inbox.stamp(self._clock.now().utc_ms)
        pages = self._client.pages("POST", f"/v2/dispatch/{level}/search", paging=DISPATCH_PAGES, body=body)
        async for page in pages:
            yield page, asked_ms
            asked_ms = self._signal.inbox.stamp(self._clock.now().utc_ms)

    def _ended(self, asked_ms: int, found: SearchFound) -> None:
        if self.failing:
            log.info("search of the aggregator's dispatch ends well again", extra={"pages": found.pages})
        self.failing = ""
        self.searched_ms, self._well_mono_ms = asked_ms, self._clock.mono_ms()
        if found.hidden > self.hidden:
            log.warning("search does not show slots that webhooks brought", extra={"count": found.hidden})
        self.hidden = found.hidden
        self._counts["complete"] += 1

    def _failed(self, error: GatewayError | OSError) -> None:
        retry = Retry.LATER if isinstance(error, OSError) else retry_of(error)
        self._counts[retry.value] += 1
        if self.failing != str(error):
            log.warning("search of the aggregator's dispatch failed", extra={"error": str(error)})
        self.failing = str(error)

    @property
    def age_s(self) -> float:
        """Since the newest search that ended well, or the start."""
        since_ms = self._began_mono_ms if self._well_mono_ms is None else self._well_mono_ms
        return (self._clock.mono_ms() - since_ms) / 1000

    def samples(self) -> Iterable[Sample]:
        yield AGE.sample(self.age_s)
        yield from SEARCHES.each(self._counts)
        yield HIDDEN.sample(self.hidden)

    def warnings(self) -> list[str]:
        found = []
        if self.age_s > LATE * self._settings.search_every_s:
            why = f": {self.failing}" if self.failing else ""
            found.append(f"dispatch of the aggregator was not searched for {self.age_s:.0f} s{why}")
        return found
