"""What reaches the fleet when firmware says what is not understood: within one read the newest word counts."""

from unittest.mock import patch

import mqtt5
import orjson
import pytest

from gateway.clock import ManualClock
from gateway.domain.fleet.fleet import Fleet
from gateway.domain.readings import ReadingBatch
from gateway.domain.types import CLEAR, unclear_names
from gateway.links.mqtt.messages import MqttLink, MqttLinkSettings
from gateway.transports.mqtt.settings import MqttSettings
from tests.builders.fakes import home
from tests.builders.homes import START_MS
from tests.scenes.street import Wire, reference

BROKEN = b'{"id":"home-1","opt_out":tru'


class Rig:
    """A link on a fleet of two homes of its product and one of another."""

    def __init__(self) -> None:
        self.clock = ManualClock(utc_ms=START_MS)
        self.fleet = Fleet()
        codec = reference()
        for name in ("home-1", "home-2"):
            self.fleet.register(home(name, profile="reference-mqtt"), codec.facts)
        self.fleet.register(home("other", profile="another"), codec.facts)
        with patch("gateway.links.mqtt.messages.MqttConnection", Wire):
            self.link = MqttLink(
                MqttLinkSettings(broker=MqttSettings(url="mqtt://127.0.0.1:1", client_id="t")),
                codecs=[codec], fleet=self.fleet, clock=self.clock,
            )  # fmt: skip
        self.batches: list[ReadingBatch] = []
        self.link.emit = self._take

    def _take(self, batch: ReadingBatch) -> None:
        self.batches.append(batch)
        if batch.live is not None:
            self.fleet.observe_live(batch.live, self.clock.now())
        if batch.unclear is not None:
            self.fleet.observe_unclear(batch.unclear)

    def hear(self, *payloads: bytes, device: str = "home-1", kind: str = "live", retain: bool = False) -> "Rig":
        """One read of the connection."""
        topic = f"gateway/v1/devices/{device}/{kind}"
        wire = self.link.control if kind == "live" else self.link.telemetry
        packets = [mqtt5.PublishPacket(topic, payload, retain=retain) for payload in payloads]
        wire.on_messages(1, packets, [])  # type: ignore[attr-defined]
        return self

    def unclear(self, slot: int = 0) -> list[str]:
        return unclear_names(int(self.fleet.live.unclear[slot]))


def live(t_ms: int = START_MS, **members: object) -> bytes:
    return orjson.dumps({"id": "home-1", "t": t_ms, "soc_pct": 55.0, "battery_w": 100.0, **members})


def test_link_unreadable_message_bars_and_leaves_the_reading_as_it_was() -> None:
    rig = Rig().hear(live())
    seen = rig.fleet.live.seen_mono_ms[0]
    rig.clock.advance(s=5)
    rig.hear(BROKEN)
    assert rig.unclear() == ["message"]
    assert (rig.fleet.live.soc_pct[0], rig.fleet.live.seen_mono_ms[0]) == (55.0, seen)
    assert rig.unclear(1) == []
    assert rig.link.stats.rejects["malformed"] == 1
    rig.hear(live(START_MS + 5_000))
    assert rig.unclear() == []


@pytest.mark.parametrize(
    ("payloads", "unclear"),
    [
        ((BROKEN, live()), []),
        ((live(), BROKEN), ["message"]),
        ((BROKEN, live(START_MS - 3_600_000)), ["message"]),
        ((live(opt_out=1), live()), []),
        ((live(), live(opt_out=1)), ["opt_out"]),
        ((live(START_MS - 3_600_000, opt_out=1), live()), []),
        ((live(), live(START_MS - 3_600_000, opt_out=1)), ["opt_out"]),
        ((live(t_ms=-1, grid="off"),), ["grid"]),
        ((live(grid="off"), BROKEN), ["grid", "message"]),
        ((live(grid="off", locked=0, faults="0"),), ["grid", "locked", "faults"]),
    ],
)
def test_link_within_one_read_the_newest_word_of_now_counts(payloads: tuple[bytes, ...], unclear: list[str]) -> None:
    assert Rig().hear(live()).hear(*payloads).unclear() == unclear


def test_link_what_the_broker_had_kept_says_nothing_of_now() -> None:
    rig = Rig().hear(live()).hear(BROKEN, retain=True).hear(live(opt_out=1), retain=True)
    assert rig.unclear() == []


def test_link_message_in_the_name_of_another_device_bars_nobody() -> None:
    rig = Rig().hear(live()).hear(live(opt_out=1), device="home-2").hear(BROKEN, device="other")
    assert [rig.unclear(slot) for slot in range(3)] == [[], [], []]
    assert rig.link.stats.rejects["identity"] == 1


@pytest.mark.parametrize("member", ["battery_w", "soc_pct", "charge_wh"])
@pytest.mark.parametrize("text", [b"NaN", b"Infinity", b"1e400", b"9" * 5_000, b'"x"', b"null"])
def test_link_energy_keeps_what_is_right_beside_a_number_that_is_none(member: str, text: bytes) -> None:
    energy = orjson.dumps({"id": "home-1", "boot": 1, "seq": 2, "t": START_MS, "charge_counter_wh": 1234.5})
    rig = Rig().hear(energy[:-1] + b',"%b":%b}' % (member.encode(), text), kind="energy")
    (found,) = [batch.energy for batch in rig.batches if batch.energy is not None]
    assert (found.seq.tolist(), found.charge_counter_wh.tolist()) == ([2], [1234.5])
    assert getattr(found, member)[0] != getattr(found, member)[0]
    assert rig.fleet.live.unclear[0] == CLEAR
