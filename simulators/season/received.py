"""What a gateway hears of a street on a day: messages of every home, with the home's own times.

A home sends every 5 s within a minute of an event's beginning and end, every 30 s in the event, and every 5 minutes
else: a device that sends every 5 s all day, without what tells a counter nothing more. A link of its own always takes
as long, so that what a home sends arrives on whole seconds. While a home is not connected it keeps its messages and
hands them over when it is back, in their order, or loses them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simulators.homes import Bools, Floats, Ints
from simulators.season.days import TrueDay
from simulators.season.official import Event
from simulators.season.street import Meter, SeasonStreet

EDGE_S, OFTEN_S, SELDOM_S = 5, 30, 300
AROUND_S = 60
COUNTER_START_WH = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Received:
    """Messages of a day (n x m), in the order in which each home wrote them. `device_ms`: by the home's clock;
    `span_ms`: since the message before; `heard_ms`: when it arrives, by the gateway's clock, 0 = never. `charge_wh` and
    `discharge_wh`: counters, NaN = it has none. `span_charge_wh` and `span_discharge_wh`: energy of the span, told by
    homes with a coarse counter, else NaN. `power_w`: at the span's end, + = discharge, told by homes without a counter,
    else NaN. `sent_ms`: true time, for judges alone."""

    event: int
    device_ms: Ints
    span_ms: Ints
    heard_ms: Ints
    charge_wh: Floats
    discharge_wh: Floats
    span_charge_wh: Floats
    span_discharge_wh: Floats
    power_w: Floats
    sent_ms: Ints

    @property
    def heard(self) -> Bools:
        return np.asarray(self.heard_ms > 0)


class Meters:
    """The counters of a street go on from day to day."""

    def __init__(self, street: SeasonStreet) -> None:
        rng = np.random.default_rng([street.seed, 32])
        self._street = street
        self._charged_wh = COUNTER_START_WH + rng.uniform(0, 1_000, len(street))
        self._discharged_wh = COUNTER_START_WH + rng.uniform(0, 1_000, len(street))

    def day(self, true: TrueDay) -> Received:
        """What is heard of a day; days come in their order."""
        street, n = self._street, len(self._street)
        sent_ms = _sent(street, street.events[true.event])
        home = np.broadcast_to(np.arange(n)[:, None], sent_ms.shape)
        charged_wh, discharged_wh = true.until(home, sent_ms)
        span_ms = np.diff(sent_ms, axis=1, prepend=(sent_ms[:, :1] - 1000 * SELDOM_S))
        begun = true.until(home[:, 0], sent_ms[:, 0] - span_ms[:, 0])
        meter = street.meter[:, None]

        def span_wh(total_wh: Floats, before_wh: Floats) -> Floats:
            moved_wh = np.diff(total_wh, axis=1, prepend=before_wh[:, None]).round(1)
            return np.where(meter == Meter.COARSE, moved_wh, np.nan)

        step_wh = street.homes.counter_step_wh[:, None]
        out = Received(
            event=true.event,
            device_ms=sent_ms + street.off_ms[:, None],
            span_ms=span_ms,
            heard_ms=self._heard(true.event, sent_ms),
            charge_wh=np.floor((self._charged_wh[:, None] + charged_wh) / step_wh) * step_wh,
            discharge_wh=np.floor((self._discharged_wh[:, None] + discharged_wh) / step_wh) * step_wh,
            span_charge_wh=span_wh(charged_wh, begun[0]),
            span_discharge_wh=span_wh(discharged_wh, begun[1]),
            power_w=np.where(meter == Meter.POWER, true.power_w(home, sent_ms).round(1), np.nan),
            sent_ms=sent_ms,
        )
        self._charged_wh += true.charged_wh[-1]
        self._discharged_wh += true.discharged_wh[-1]
        return out

    def _heard(self, event: int, sent_ms: Ints) -> Ints:
        street = self._street
        begin_ms, until_ms = (street.away_ms[:, event, i][:, None] for i in range(2))
        heard_ms = sent_ms + street.latency_ms[:, None]
        away = (begin_ms <= heard_ms) & (heard_ms < until_ms)
        heard_ms = np.where(away, np.where(street.loses[:, event][:, None], 0, until_ms), heard_ms)
        return np.asarray(heard_ms, dtype=np.int64)


def received_days(street: SeasonStreet, days: Iterator[TrueDay]) -> Iterator[tuple[TrueDay, Received]]:
    """What was so, and what is heard of it."""
    meters = Meters(street)
    for true in days:
        yield true, meters.day(true)


def _sent(street: SeasonStreet, event: Event) -> Ints:
    """True times of a day's messages (n x m)."""
    begins_s, ends_s = ((at_ms - event.midnight_ms) // 1000 for at_ms in (event.start_ms, event.end_ms))
    paces = (
        (SELDOM_S, begins_s - AROUND_S, SELDOM_S),
        (begins_s - AROUND_S, begins_s + AROUND_S, EDGE_S),
        (begins_s + AROUND_S, ends_s - AROUND_S, OFTEN_S),
        (ends_s - AROUND_S, ends_s + AROUND_S, EDGE_S),
        (ends_s + AROUND_S, 86_400 - EDGE_S, SELDOM_S),
    )
    at_s = np.concatenate([np.arange(*pace) for pace in paces]).astype(np.int64)
    heard_s = at_s[None, :] + np.arange(len(street))[:, None] % EDGE_S
    return np.asarray(event.midnight_ms + 1000 * (heard_s + 1) - street.latency_ms[:, None], dtype=np.int64)
