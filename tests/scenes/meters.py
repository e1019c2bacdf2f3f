"""Simulated devices that count energy in whole Wh and keep each message until it is acknowledged.

What they truly did is kept in integers beside it, so that the sum of what a receiver has can be judged without any of
the gateway's arithmetic.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import orjson

STEP_S = 10
STEP_MS = STEP_S * 1000
RATED_W = 5_000.0
FIRST_WH = 1_000
"""What the counters show when a device is new here."""
WILD = 1_000_000

Energy = tuple[int, int]
"""Charged and discharged, Wh."""


@dataclass(eq=False, slots=True, kw_only=True)
class Message:
    """One settlement message; `counters` (Wh) at its end, `span` the energy since the one before. `whole`: it is what
    the protocol says, `garbled`: it is no message at all. `readable`: its device was registered as this product when
    it was acknowledged."""

    device: str
    topic: str
    payload: bytes
    t_ms: int
    counters: Energy
    span: Energy
    whole: bool = True
    garbled: bool = False
    readable: bool = False
    acknowledged: bool = False


@dataclass(eq=False, slots=True, kw_only=True)
class Meter:
    """A device. `counts`: it has lifetime counters; else it reports the energy of each span. `off_ms`: how far its
    clock is ahead. `astray`: something happened to it after which energy may stand in another interval than it belongs
    to. `strict`: also what was read long after later messages must count."""

    name: str
    counts: bool
    product: str
    number: int
    boot: int = 1
    seq: int = 0
    off_ms: int = 0
    held: int = 0
    silent: int = 0
    astray: bool = False
    strict: bool = False
    at_ms: int = 0
    said_ms: int = 0
    counters: Energy = (FIRST_WH, FIRST_WH)
    said: Energy = (FIRST_WH, FIRST_WH)
    wild: bool = False
    holding: list[Message] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    odd: list[Message] = field(default_factory=list)
    truth: dict[int, Energy] = field(default_factory=dict)
    """Energy of each step of `STEP_S`, by its end (UTC ms)."""

    def step(self, now_ms: int) -> list[Message]:
        """`STEP_S` more seconds of its life until `now_ms` (true UTC ms); what it sends then."""
        count = now_ms // STEP_MS
        energy = ((7 * count + 3 * self.number) % 12, (5 * count + self.number) % 9)
        self.truth[now_ms] = energy
        self.counters = (self.counters[0] + energy[0], self.counters[1] + energy[1])
        self.at_ms = now_ms
        if self.silent > 0:
            self.silent -= 1
            return []
        return self.speak()

    def speak(self) -> list[Message]:
        """A message of what was since the one before; none while it holds them back, then all from the newest on."""
        message = self._message()
        self.sent.append(message)
        self.said, self.said_ms = self.counters, self.at_ms
        if not self.held:
            return [message]
        self.holding.append(message)
        self.held -= 1
        if self.held:
            return []
        released, self.holding = self.holding[::-1], []
        return released

    def release(self) -> list[Message]:
        """What it still holds back."""
        self.held = 0
        released, self.holding = self.holding[::-1], []
        return released

    def _message(self) -> Message:
        self.seq += 1
        seq = self.seq + WILD if self.wild else self.seq
        self.wild = False
        span = (self.counters[0] - self.said[0], self.counters[1] - self.said[1])
        t_ms = self.at_ms + self.off_ms
        body: dict[str, Any] = {"boot": self.boot, "seq": seq, "t": t_ms, "soc_pct": 50.0}
        if self.counts:
            body |= {"charge_counter_wh": self.counters[0], "discharge_counter_wh": self.counters[1]}
        else:
            body |= {"span_ms": self.at_ms - self.said_ms if self.said_ms else STEP_MS}
            body |= {"charge_wh": span[0], "discharge_wh": span[1]}
        return self._of(orjson.dumps({"id": self.name} | body), t_ms, span)

    def _of(self, payload: bytes, t_ms: int, span: Energy = (0, 0)) -> Message:
        return Message(
            device=self.name, topic=topic_of(self.product, self.name), payload=payload, t_ms=t_ms,
            counters=self.counters, span=span,
        )  # fmt: skip

    def strange(self, edit: dict[str, Any] | bytes) -> Message:
        """A message beside the others that carries no energy of its own: nobody can read it, or something is wrong
        in it."""
        whole: dict[str, Any] = {"id": self.name, "boot": self.boot, "seq": self.seq, "t": self.at_ms, "span_ms": 0}
        payload = edit if isinstance(edit, bytes) else orjson.dumps(whole | edit)
        message = self._of(payload, self.at_ms)
        message.whole, message.garbled = False, isinstance(edit, bytes)
        self.odd.append(message)
        return message

    def stray(self) -> Message:
        """Its newest message once more, as another product would send it."""
        other = next(product for product in PREFIXES if product != self.product)
        newest = self.sent[-1]
        message = replace(newest, topic=topic_of(other, self.name), whole=False, acknowledged=False, readable=False)
        self.odd.append(message)
        return message

    def reboot(self) -> None:
        """Its numbers begin anew; its counters go on."""
        self.boot, self.seq = self.boot + 1, 0

    def certain(self) -> list[Message]:
        """Messages that must count: acknowledged, and of the product that the device is now, or that it was when they
        were acknowledged."""
        mine = topic_of(self.product, self.name)
        return [m for m in self.sent if m.acknowledged and (m.readable or m.topic == mine)]

    def moved(self) -> tuple[Energy, Energy]:
        """The least and the most that the receiver must have. Of a counter: from the first message that counts to the
        last one; else the sum of all spans. What waits for a product that the device is no more may count or not."""
        certain = self.certain()
        if self.counts and not self.strict and len({message.topic for message in self.sent}) > 1:
            # what was kept of one product and is read after messages of another one is older than all that is known
            at = next((at for at, message in enumerate(certain) if message.readable), 0)
            certain = certain[at:]
        return self._moved(certain), self._moved(self.sent)

    def _moved(self, messages: list[Message]) -> Energy:
        if not messages:
            return (0, 0)
        if not self.counts:
            return (sum(m.span[0] for m in messages), sum(m.span[1] for m in messages))
        charged, discharged = ([m.counters[way] for m in messages] for way in (0, 1))
        return (max(charged) - min(charged), max(discharged) - min(discharged))


def topic_of(product: str, name: str) -> str:
    """Where a device of a product sends settlement messages."""
    return f"{PREFIXES[product]}/{name}/energy"


PREFIXES = {"reference-mqtt": "gateway/v1/devices", "second": "second/v1/devices"}
