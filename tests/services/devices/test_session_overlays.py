"""A session whose device is of an overlay: another transport section, other required models, and serials that are
numbers."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.domain.errors import NotThisProduct
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.ports.links import NO_MODELS, PointTarget
from gateway.profiles.compile import compile_profile
from gateway.profiles.compiled.points import Raw
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.loader import parse_profile
from gateway.services.devices.device_control import DeviceControlStats
from gateway.services.devices.session import DeviceSession
from gateway.services.devices.session_state import Hearer, SessionPhase, SessionStats
from tests.builders.fakes import MemoryJournal
from tests.scenes.waiting import until
from tests.virtual.clock import loop_clock

PROFILE = """
language: 1
profile: made-up
maker: Made
product: Up
evidence: {tag: documented, source: this test}
transport: modbus
facts:
  {command_latency_s: 5, efficiency_discharge: 0.95, efficiency_charge: 0.95, standby_w: 30, soc_uncertainty_pct: 5}
modbus: {units: {main: 1}, registers_max: 50, sunspec: {required: [103]}}
identity: {serial: number, rules: [{point: firmware, from_version: "1.5"}]}
points:
  number: {register: 1, type: u32, poll: once}
  firmware: {register: 3, type: text, words: 4, poll: once}
  battery: {register: 10, type: i16, unit: W}
  soc: {register: 11, type: u16, unit: "%"}
readings:
  battery_w: {point: battery, sign: discharge_positive, measured_at: battery_ac, range: [-5000, 5000]}
  soc_pct: {point: soc, range: [0, 100]}
overlays:
  - name: new
    when: [{point: firmware, from_version: "1.80"}]
    modbus: {units: {main: 1}, registers_max: 100, word_order: little, sunspec: {required: [103, 160]}}
"""


class Device:
    """A link to a device that says `firmware` and has these models. `opened` counts links that are open."""

    heard_mono_ms: int | None = None
    notice: str | None = None
    models = NO_MODELS
    opened = 0

    def __init__(self, firmware: str, models: Sequence[int] = (103, 160), number: int = 123) -> None:
        self.chain, self.targets = set(models), list[PointTarget]()
        text = firmware.ljust(8, "\0").encode()
        self.words: dict[str, tuple[int, ...]] = {
            "number": (number >> 16, number & 0xFFFF), "battery": (100,), "soc": (60,),
            "firmware": tuple(text[i] << 8 | text[i + 1] for i in range(0, 8, 2)),
        }  # fmt: skip

    def link(self, target: PointTarget) -> "Device":
        self.targets.append(target)
        return self

    async def open(self) -> None:
        self.opened += 1
        section = self.targets[-1].document.modbus
        assert section is not None
        assert section.sunspec is not None
        lacking = set(section.sunspec.required) - self.chain
        if lacking:
            raise NotThisProduct(f"SunSpec models {lacking} are missing")

    async def close(self) -> None:
        self.opened -= 1

    async def read(self, points: Sequence[str]) -> dict[str, Raw]:
        return {name: self.words[name] for name in points}

    async def write(self, request: Request) -> None: ...


@asynccontextmanager
async def session_with(device: Device, **parameters: str) -> AsyncIterator[DeviceSession]:
    codec = compile_profile(parse_profile(PROFILE, name="made-up.yaml"))
    assert codec.product is not None
    connection = DeviceConnection(url="modbus://127.0.0.1", parameters=tuple(parameters.items()))
    target = PointTarget(
        device=DeviceId("home"), connection=connection, secret="", document=codec.document,
        points=codec.product.base.points,
    )  # fmt: skip
    hearer = Hearer(
        live=lambda *_: None, energy=lambda *_: None, answer=lambda *_: None, online=lambda *_: None,
        unread=lambda *_: None, trusted=lambda *_: None,
    )  # fmt: skip
    session = DeviceSession(
        0, target, codec.product, links=device, secret_of=str, journal=MemoryJournal(), clock=loop_clock(),
        rng=random.Random(1), hearer=hearer, prior={}, stats=SessionStats(), control_stats=DeviceControlStats(),
    )  # fmt: skip
    async with asyncio.TaskGroup() as group:
        running = group.create_task(session.run(), name="session")
        try:
            yield session
        finally:
            running.cancel()


@pytest.mark.parametrize(("firmware", "longest"), [("1.9", 50), ("V1.80", 100), ("2.0", 100)])
async def test_overlay_section_is_how_a_device_of_that_firmware_is_reached(firmware: str, longest: int) -> None:
    device = Device(firmware)
    async with session_with(device) as session:
        await until(lambda: session.state is SessionPhase.READY, "the session")
        section = device.targets[-1].document.modbus
        assert section is not None
        assert section.registers_max == longest
        assert device.opened == 1


async def test_overlay_requires_its_own_models_and_leaves_no_link_open() -> None:
    device = Device("1.80", models=[103])
    async with session_with(device) as session:
        await until(lambda: session.state is SessionPhase.QUARANTINED, "the quarantine")
        assert session.why is not None
        assert "160" in session.why
        assert device.opened == 0
    device = Device("1.9", models=[103])
    async with session_with(device) as session:
        await until(lambda: session.state is SessionPhase.READY, "the session")


@pytest.mark.parametrize("firmware", ["1.4.9", "beta", ""])
async def test_identity_version_too_old_or_none_is_another_product(firmware: str) -> None:
    async with session_with(Device(firmware)) as session:
        await until(lambda: session.state is SessionPhase.QUARANTINED, "the quarantine")
        assert session.why == f"firmware is {firmware!r}, expected version 1.5 or later"


@pytest.mark.parametrize("registered", ["3001234567", "0003001234567"])
async def test_serial_that_is_a_number_is_the_registered_one_whatever_its_zeros(registered: str) -> None:
    async with session_with(Device("1.9", number=3001234567), serial=registered) as session:
        await until(lambda: session.state is SessionPhase.READY, "the session")


@pytest.mark.parametrize("registered", ["3001234568", "SN3001234567", "3001234567.0"])
async def test_serial_that_is_another_number_is_another_device(registered: str) -> None:
    async with session_with(Device("1.9", number=3001234567), serial=registered) as session:
        await until(lambda: session.state is SessionPhase.QUARANTINED, "the quarantine")
        assert session.why == f"serial is 3001234567, expected {registered}"
