"""Paces the requests to a host: commands first, a bounded number at once, spaced, and none while the host fails.

`Line` is a queue with two classes, `Gate` gives turns at one host, `Quota` limits the requests of one maker's account,
`Breaker` pauses a host that fails.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from gateway.clock import Clock
from gateway.domain.errors import LinkDown, PeerBusy

QUEUE_S_MAX = 30.0
MINUTE_S = 60.0
BURST_PART = 10
TIMER_S_MIN = 0.001


class Line:
    """Waiting requests: those marked `first` before the others, each class in the order of arrival.

    `ready_in` returns in how many seconds the next may go (None = when `advance` is called again), `acquire` occupies a
    place for it and `give_back` frees the place of one that was cancelled.
    """

    __slots__ = ("_acquire", "_first", "_give_back", "_others", "_ready_in", "_timer")

    def __init__(
        self, *, ready_in: Callable[[], float | None], acquire: Callable[[], None], give_back: Callable[[], None]
    ) -> None:
        self._ready_in = ready_in
        self._acquire = acquire
        self._give_back = give_back
        self._first: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, *, first: bool, at_most_s: float) -> None:
        """Wait for our turn. Raises TimeoutError when it does not come within `at_most_s`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line = self._first if first else self._others
        line.append(turn)
        self.advance()
        try:
            async with asyncio.timeout(at_most_s):
                await turn
        except (asyncio.CancelledError, TimeoutError):
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back()
            else:
                turn.cancel()
                # Removal from the middle is cheap: the queue is at most as long as there are devices behind one host.
                with suppress(ValueError):
                    line.remove(turn)
            self.advance()
            raise

    def advance(self) -> None:
        """Start every request that may go now, and set a timer for the next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._first or self._others:
            delay_s = self._ready_in()
            if delay_s is None:
                return
            if delay_s > 0:
                self._timer = asyncio.get_running_loop().call_later(max(delay_s, TIMER_S_MIN), self.advance)
                return
            turn = (self._first or self._others).popleft()
            if not turn.done():
                self._acquire()
                turn.set_result(None)

    def close(self) -> None:
        """Send everybody away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for line in (self._first, self._others):
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_exception(LinkDown("the links are closed"))


class Gate:
    """Turns at one host: at most `concurrency` at once, each request `spacing_s` after the one before."""

    __slots__ = ("_active", "_clock", "_concurrency", "_line", "_next_ms", "_queue_s", "_spacing_ms")

    def __init__(self, *, concurrency: int, spacing_s: float, clock: Clock) -> None:
        self._concurrency = concurrency
        self._spacing_ms = round(1000 * spacing_s)
        self._queue_s = max(QUEUE_S_MAX, 2 * spacing_s)
        self._clock = clock
        self._active = 0
        self._next_ms = clock.mono_ms()
        self._line = Line(ready_in=self._ready_in, acquire=self._enter, give_back=self._leave)

    def _ready_in(self) -> float | None:
        if self._active >= self._concurrency:
            return None
        return max(0, self._next_ms - self._clock.mono_ms()) / 1000

    def _enter(self) -> None:
        self._active += 1
        self._next_ms = self._clock.mono_ms() + self._spacing_ms

    def _leave(self) -> None:
        self._active -= 1

    @asynccontextmanager
    async def turn(self, *, first: bool) -> AsyncIterator[None]:
        """A place among the requests at the host. Raises PeerBusy when none is free for long."""
        try:
            await self._line.wait(first=first, at_most_s=self._queue_s)
        except TimeoutError as error:
            raise PeerBusy(f"no turn at this host within {self._queue_s:g} s") from error
        try:
            yield
        finally:
            self._leave()
            self._line.advance()

    async def again(self) -> None:
        """Pause before one more request of the same turn."""
        wait_ms = self._next_ms - self._clock.mono_ms()
        self._next_ms = max(self._next_ms, self._clock.mono_ms()) + self._spacing_ms
        if wait_ms > 0:
            await asyncio.sleep(wait_ms / 1000)

    def close(self) -> None:
        self._line.close()


class Quota:
    """Requests of one account: never more than `per_min` in any minute, commands before polls.

    A token bucket with the capacity of a tenth of `per_min`, refilled with the rest, so that polls cannot use up a
    whole minute and make a command wait for the next.
    """

    __slots__ = ("_burst", "_clock", "_filled_ms", "_line", "_per_s", "_tokens")

    def __init__(self, *, per_min: int, clock: Clock) -> None:
        self._burst = float(max(1, per_min // BURST_PART))
        self._per_s = max(1.0, per_min - self._burst) / MINUTE_S
        self._tokens = self._burst
        self._clock = clock
        self._filled_ms = clock.mono_ms()
        self._line = Line(ready_in=self._ready_in, acquire=self.spend, give_back=self.give_back)

    def _ready_in(self) -> float:
        now_ms = self._clock.mono_ms()
        self._tokens = min(self._burst, self._tokens + (now_ms - self._filled_ms) / 1000 * self._per_s)
        self._filled_ms = now_ms
        missing = 1.0 - self._tokens
        return missing / self._per_s if missing > 1e-9 else 0.0

    async def acquire(self, *, first: bool, at_most_s: float) -> None:
        """Wait until a request may be sent. Raises PeerBusy when none may be within `at_most_s`."""
        try:
            await self._line.wait(first=first, at_most_s=at_most_s)
        except TimeoutError as error:
            raise PeerBusy("the account's quota is used up", after_s=self._ready_in()) from error

    def spend(self) -> None:
        """Count a request that could not wait (a login in the middle of another request)."""
        self._tokens -= 1.0

    def give_back(self) -> None:
        """Take back the count of a request that was not sent after all."""
        self._tokens += 1.0

    def returned(self) -> None:
        """Like `give_back`; then the next in line may send."""
        self.give_back()
        self._line.advance()

    def close(self) -> None:
        self._line.close()


class Breaker:
    """Leaves a host alone: for `rest_s` after `failures_max` failures in a row, then until one trial request succeeds;
    and for as long as the host asks."""

    __slots__ = ("_busy_until_ms", "_clock", "_failures", "_failures_max", "_open_until_ms", "_rest_ms", "_trial")

    def __init__(self, *, failures_max: int, rest_s: float, clock: Clock) -> None:
        self._failures_max = failures_max
        self._rest_ms = round(1000 * rest_s)
        self._clock = clock
        self._failures = 0
        self._open_until_ms: int | None = None
        self._busy_until_ms = clock.mono_ms()
        self._trial = False

    def check(self) -> None:
        """Raises PeerBusy while the host asked for quiet and LinkDown while it is left alone."""
        now_ms = self._clock.mono_ms()
        if now_ms < self._busy_until_ms:
            raise PeerBusy("the host asked for quiet", after_s=(self._busy_until_ms - now_ms) / 1000)
        if self._open_until_ms is not None and (now_ms < self._open_until_ms or self._trial):
            raise LinkDown(f"the host failed {self._failures} times in a row and is left alone")

    def begin(self) -> bool:
        """Begin a request; returns whether it is the trial. Raises like `check`."""
        self.check()
        if self._open_until_ms is not None:
            self._trial = True
        return self._trial

    def end(self, *, trial: bool) -> None:
        """End a request, whatever its outcome."""
        if trial:
            self._trial = False

    def succeeded(self) -> None:
        self._failures = 0
        self._open_until_ms = None

    def failed(self) -> bool:
        """Count a failure; returns whether the host is left alone from now on."""
        self._failures += 1
        if self._failures < self._failures_max:
            return False
        self._open_until_ms = self._clock.mono_ms() + self._rest_ms
        return True

    def busy(self, after_s: float) -> None:
        """The host asked for quiet."""
        self._busy_until_ms = max(self._busy_until_ms, self._clock.mono_ms() + round(1000 * after_s))
