"""Every product in trouble: silent, slow, garbled, busy, refusing, rebooting, overwritten, or another product."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from gateway.domain.errors import LinkDown
from gateway.domain.types import DeviceId, Mode
from gateway.ports.links import PointTarget
from gateway.services.devices.session_state import SessionPhase
from simulators.faces.plant import Face, Trouble
from tests.conformance.recording import ignored
from tests.conformance.rig import CODECS, PRODUCTS, STEERED, Rig, bench
from tests.conformance.together import together

TROUBLES = [trouble for trouble in Trouble if trouble is not Trouble.NONE]
# What a product is known to do by itself between two of its own writes, 0 W besides the old and the new setpoint.
PAUSES_BETWEEN = {
    "sonnen-v2": "a setpoint counts in manual mode only, so the mode comes first; charge clears the other direction",
    "hoymiles-ms-a2": "a setpoint counts in mqtt_ctrl only, and a reboot keeps the mode and not the setpoint",
}
# Commands go through a broker: a product that drops one without a word has neither taken nor refused it.
DROPS_SILENTLY = {name for name in STEERED if CODECS[name].document.transport == "mqtt"}


def transport(name: str) -> str:
    section = CODECS[name].document.mqtt
    return f"mqtt-{section.broker}" if section is not None else CODECS[name].document.transport


async def acts_on(rig: Rig, setpoint_w: float) -> bool:
    """Whether the product is steered to `setpoint_w` now; where its own loop over load and PV does it, nearly."""
    await rig.settle()
    return rig.controlled() and abs(rig.plant.battery_w - setpoint_w) < 100


async def recovered(rig: Rig) -> None:
    """The session is back by itself, tells the truth, and a command works."""
    await rig.back()
    assert await rig.power(900) == rig.done
    await rig.expect_w(900)
    assert await rig.power(-700) == rig.done
    await rig.expect_w(-700)


@asynccontextmanager
async def two(name: str, **columns: Any) -> AsyncIterator[tuple[Rig, Rig]]:
    """Two devices of one product, on one loop and the same links."""
    async with bench(name, **columns) as sick, bench(name, beside=sick, **columns) as well:
        yield sick, well


def prepare(rig: Rig, trouble: Trouble) -> None:
    rig.face.late_s = 2 * rig.timeout_s
    rig.face.trouble = trouble


@pytest.mark.parametrize("name", STEERED)
async def test_trouble_is_told_honestly_ends_by_itself_and_disturbs_nobody(name: str) -> None:
    """F3 silent, F4 late, F5 garbage, busy and exceptions, F6 over HTTP."""
    cases = {trouble.value: partial(_steered_in_trouble, name, trouble) for trouble in TROUBLES}
    await together(cases)


async def _steered_in_trouble(name: str, trouble: Trouble) -> None:
    async with two(name) as (sick, well):
        assert await sick.power(1500) == sick.done
        await sick.expect_w(1500)
        prepare(sick, trouble)
        delivery, result = await sick.power(-1200)
        acts = await acts_on(sick, -1200)
        if result is CommandResult.APPLIED:
            assert acts, "applied, it says, and it is not"
        if delivery in (WriteOutcome.NOT_SENT, WriteOutcome.REFUSED):
            assert not acts, f"{delivery.name}, it says, and it is"
        if trouble is Trouble.REFUSE and name not in DROPS_SILENTLY:
            assert (delivery, result) == (WriteOutcome.REFUSED, CommandResult.REFUSED)
        if _is_lost_by(name, trouble):
            await _nothing_is_made_up(sick)
            assert (await sick.power(1000))[0] is WriteOutcome.NOT_SENT
        await _goes_on(well)
        assert await well.power(600) == well.done
        await well.expect_w(600)
        sick.face.trouble = Trouble.NONE
        await recovered(sick)


@pytest.mark.parametrize("name", [name for name in PRODUCTS if name not in STEERED])
async def test_trouble_of_a_product_that_is_only_read_ends_by_itself(name: str) -> None:
    """F3, F4, F5, F6."""
    await together({trouble.value: partial(_read_in_trouble, name, trouble) for trouble in TROUBLES})


async def _read_in_trouble(name: str, trouble: Trouble) -> None:
    async with two(name) as (sick, well):
        prepare(sick, trouble)
        if _is_lost_by(name, trouble):
            await _nothing_is_made_up(sick)
        await _goes_on(well)
        sick.face.trouble = Trouble.NONE
        await sick.back()
        row = await sick.fresh()
        assert abs(row["soc_pct"] - sick.plant.soc_pct) < 1.0


def _is_lost_by(name: str, trouble: Trouble) -> bool:
    """Whether readings cease, too."""
    if name in DROPS_SILENTLY:
        return trouble in (Trouble.SILENT, Trouble.DISCONNECT)
    return trouble is not Trouble.REFUSE


async def _nothing_is_made_up(rig: Rig) -> None:
    """F3: a device that does not answer is seen to be away, and is not made to say anything."""
    await rig.until(lambda: rig.session.state is not SessionPhase.READY, "the trouble to be seen")
    # A reading that had come before may still be on its way.
    await rig.go(1.0)
    count = len(rig.heard.live)
    await rig.go(3 * rig.codec.document.polling.live_s)
    assert len(rig.heard.live) == count


async def _goes_on(rig: Rig) -> None:
    count = len(rig.heard.live)
    await rig.until(lambda: len(rig.heard.live) >= count + 5, "readings of the other one")
    assert rig.session.state is SessionPhase.READY


async def test_requests_that_wait_for_a_connection_that_is_given_up_fail_with_it() -> None:
    """F3: a request left waiting for ever would keep its session from ever commanding the device again."""
    async with bench("foxess-h3") as rig:
        document = rig.codec.document
        target = PointTarget(
            device=DeviceId("bench"), connection=rig.connection, secret="", document=document, points=document.points
        )  # fmt: skip
        link = rig.links.inner.link(target)
        await link.open()
        rig.face.trouble = Trouble.SILENT
        try:
            async with asyncio.timeout(12 * rig.timeout_s):
                told = await asyncio.gather(*(link.read(["soc"]) for _ in range(8)), return_exceptions=True)
        finally:
            await link.close()
        assert [type(each) for each in told] == [LinkDown] * 8


@pytest.mark.parametrize("name", [n for n in STEERED if n not in DROPS_SILENTLY])
async def test_slow_answers_within_the_timeout_are_answers(name: str) -> None:
    """F4."""
    async with bench(name) as rig:
        rig.face.late_s = 0.4 * rig.timeout_s
        rig.face.trouble = Trouble.LATE
        assert await rig.power(1500) == rig.done
        await rig.expect_w(1500)
        await rig.fresh()
        assert rig.session.state is SessionPhase.READY


@pytest.mark.parametrize("name", [n for n in STEERED if n not in DROPS_SILENTLY])
async def test_refusal_half_way_hands_the_device_back(name: str) -> None:
    """F5: an exception in the middle of a sequence leaves neither half a command nor changed settings."""
    async with bench(name) as rig:
        before = rig.face.settings()
        assert await rig.power(-1200) == rig.done
        length = len(rig.links.writes)
        assert await rig.tell(CommandOp.RELEASE) == rig.done
        if rig.sequences.stop_only:
            await rig.go(rig.unlocked_s)
        assert rig.face.settings() == before
        for at in range(1, length + 1):
            await rig.fresh()
            number = len(rig.links.writes) + at

            def before_write(n: int, number: int = number) -> None:
                rig.face.trouble = Trouble.REFUSE if n == number else Trouble.NONE

            def after_write(_n: int) -> None:
                rig.face.trouble = Trouble.NONE

            rig.links.before, rig.links.after = before_write, after_write
            told = await rig.power(-1200)
            rig.links.before = rig.links.after = ignored
            if len(rig.links.writes) < number:
                # What an episode does not take back does not have to be written again.
                assert at > 1
                assert told == rig.done
                return
            assert told == (WriteOutcome.REFUSED, CommandResult.REFUSED), f"write {at} of {length}"
            if rig.sequences.stop_only:
                await rig.go(rig.unlocked_s)
            assert not rig.controlled(), f"write {at} of {length}"
            assert rig.face.settings() == before, f"write {at} of {length}"
            assert rig.prior == {}, f"write {at} of {length}"


# -- reboots ---------------------------------------------------------------------------------------------------

# From which setpoint (None = its own mode) to which (None = release), by name.
PASSAGES: dict[str, tuple[float | None, float | None]] = {
    "first-discharge": (None, 1500.0),
    "first-charge": (None, -1200.0),
    "first-hold": (None, 0.0),
    "discharge-to-charge": (1500.0, -1200.0),
    "charge-to-discharge": (-1200.0, 2500.0),
    "more-discharge": (1500.0, 2500.0),
    "charge-to-hold": (-1200.0, 0.0),
    "release": (-1200.0, None),
}


async def reach(rig: Rig, setpoint_w: float | None) -> tuple[WriteOutcome, CommandResult]:
    if setpoint_w is None:
        return await rig.tell(CommandOp.RELEASE)
    return await rig.power(setpoint_w)


async def at_start(rig: Rig, old_w: float | None) -> None:
    """In its own mode for long after another setpoint, then under `old_w`."""
    await rig.back()
    if old_w is None:
        assert await rig.power(-400) == rig.done
        await rig.fresh()
    await rig.tell(CommandOp.RELEASE)
    if rig.sequences.stop_only:
        await rig.go(rig.unlocked_s)
    await rig.settle()
    await rig.back()
    if old_w is not None:
        assert await rig.power(old_w) == rig.done
        await rig.expect_w(old_w)
        await rig.fresh()


async def consistent(rig: Rig, allowed_w: list[float]) -> bool:
    """Whether the device is in its own mode or under one of the setpoints, and no other."""
    await rig.settle()
    return not rig.controlled() or any(abs(rig.plant.battery_w - w) < 120 for w in allowed_w)


@pytest.mark.fault("F32")
@pytest.mark.parametrize("name", STEERED)
async def test_reboot_after_every_write_leaves_the_old_or_the_whole_setpoint(name: str) -> None:
    """F32: at every step of the sequence, then consistent within the declared time, and the next command works."""
    await together({passage: partial(_reboots_on, name, passage) for passage in PASSAGES})


async def _reboots_on(name: str, passage: str) -> None:
    old_w, new_w = PASSAGES[passage]
    allowed_w = [w for w in (old_w, new_w) if w is not None] + ([0.0] if name in PAUSES_BETWEEN else [])
    async with bench(name, load_base_w=600.0) as rig:
        settings = rig.face.settings()
        await at_start(rig, old_w)
        begin = len(rig.links.writes)
        assert await reach(rig, new_w) == rig.done
        length = len(rig.links.writes) - begin
        assert length >= 1
        for n in range(1, length + 1):
            where = f"write {n} of {length}"
            await at_start(rig, old_w)
            rig.face.reboot_after_writes(n)
            delivery, result = await reach(rig, new_w)
            rig.face.reboot_after_writes(None)
            assert await consistent(rig, allowed_w), f"{where}: {rig.plant.battery_w:.0f} W"
            if result is CommandResult.APPLIED and new_w is not None and name not in DROPS_SILENTLY:
                assert await acts_on(rig, new_w), f"{where}: {delivery.name} {result.name}"
            await rig.go(rig.unlocked_s)
            if CODECS[name].facts.timed:
                assert not rig.controlled(), f"{where}: still under control"
            else:
                assert await consistent(rig, allowed_w), f"{where}: later {rig.plant.battery_w:.0f} W"
            await rig.back()
            told = await rig.power(800)
            assert told == rig.done, f"{where}: the next command: {told}"
            await rig.expect_w(800)
        await at_start(rig, None)
        assert rig.face.settings() == settings
        assert not rig.controlled()


def test_products_that_pause_between_are_steered_ones() -> None:
    assert set(PAUSES_BETWEEN) <= set(STEERED)


# -- somebody else -----------------------------------------------------------------------------------------------

MODELESS = [name for name in STEERED if "mode" not in CODECS[name].document.readings]


def test_products_that_do_not_tell_who_steers_them_are_known() -> None:
    assert MODELESS == ["hoymiles-ms-a2", "sma-sbs"]


@pytest.mark.parametrize("name", [name for name in STEERED if name not in MODELESS])
async def test_overwrite_by_owner_or_cloud_is_seen_in_the_mode(name: str) -> None:
    async with bench(name) as rig:
        assert await rig.power(1500) == rig.done
        await rig.expect_w(1500)
        row = await rig.fresh()
        assert row["mode"] == Mode.REMOTE
        rig.face.overwrite()
        await rig.go(2)
        polls = len(rig.heard.live)
        await rig.until(lambda: rig.heard.live[-1]["mode"] != Mode.REMOTE, "the other's mode")
        assert len(rig.heard.live) - polls <= 8


# -- another product ---------------------------------------------------------------------------------------------


@pytest.mark.fault("F28")
@pytest.mark.parametrize("name", PRODUCTS)
async def test_other_products_at_the_address_are_never_written(name: str) -> None:
    """F28: whatever answers instead, it does not get ready, and nothing is written to it."""
    others = [other for other in PRODUCTS if other != name and transport(other) == transport(name)]

    async def tried(other: str) -> None:
        async with bench(name, face=other, wait=False) as rig:
            before = rig.face.settings()
            await rig.until(
                lambda: (
                    rig.session.state is SessionPhase.QUARANTINED
                    or (rig.session.state is SessionPhase.DOWN and rig.session.why != "not connected yet")
                ),
                "a verdict",
            )
            for setpoint_w in (1000, -1000):
                assert (await rig.power(setpoint_w))[0] is WriteOutcome.NOT_SENT
            assert not rig.fleet.nameplate.steerable[0] or rig.session.state is SessionPhase.DOWN
            assert rig.sessions is not None
            assert rig.sessions.stats.connects == 0
            assert rig.links.writes == []
            assert rig.writes_on_wire() == 0
            assert rig.face.settings() == before
            assert rig.heard.live == []

    await together({other: partial(tried, other) for other in others})


def shift(face: Face) -> None:
    """As after a firmware update that inserted a register: everything lies one further."""
    read = face.read  # type: ignore[attr-defined]

    def shifted(unit: int, function: int, address: int, count: int) -> list[int]:
        words: list[int] = read(unit, function, address - 1, count)
        return words

    setattr(face, "read", shifted)  # noqa: B010


@pytest.mark.parametrize("name", [name for name in PRODUCTS if transport(name) == "modbus"])
async def test_shifted_map_is_never_written(name: str) -> None:
    """F28."""
    async with bench(name, wait=False, change=shift) as rig:
        await rig.until(
            lambda: (
                rig.session.state is SessionPhase.QUARANTINED
                or (rig.session.state is SessionPhase.DOWN and rig.session.why != "not connected yet")
            ),
            "a verdict",
        )
        assert (await rig.power(1000))[0] is WriteOutcome.NOT_SENT
        assert rig.sessions is not None
        assert rig.sessions.stats.connects == 0
        assert rig.writes_on_wire() == 0
        assert rig.heard.live == []


@pytest.mark.parametrize("name", [name for name in PRODUCTS if transport(name) == "modbus"])
async def test_map_that_shifts_while_running_is_found_at_the_next_connect(name: str) -> None:
    """F28: identity is looked at anew after every reconnect."""
    async with bench(name) as rig:
        on_wire = rig.writes_on_wire()
        shift(rig.face)
        rig.face.reboot()
        await rig.until(lambda: rig.session.state is not SessionPhase.READY, "the reboot")
        for _ in range(3):
            assert (await rig.power(1000))[0] in (WriteOutcome.NOT_SENT, WriteOutcome.UNKNOWN)
            await rig.go(5.0)
        assert rig.session.state is not SessionPhase.READY
        assert rig.writes_on_wire() == on_wire


@pytest.mark.parametrize("name", [name for name in PRODUCTS if transport(name) == "modbus"])
async def test_values_of_several_registers_are_read_in_one_request(name: str) -> None:
    """F29: a value that changes between two of its words would be torn."""
    async with bench(name) as rig:
        document = rig.codec.document
        assert document.modbus is not None
        units = document.modbus.units
        wide = [
            (units[point.unit_id], point.function, point.address, point.register_count)
            for point in document.points.values()
            if point.address is not None and point.register_count > 1 and point.poll != "never" and point.readable
        ]
        await rig.until(lambda: bool(rig.heard.energy), "every group")
        await rig.fresh()
        requests = [r for r in getattr(rig.face, "server").requests if r[1] in (3, 4)]  # noqa: B009
        for unit, function, address, count in wide:
            over = [
                r for r in requests if r[:2] == (unit, function) and r[2] < address + count and address < r[2] + r[3]
            ]
            assert over
            torn = [r for r in over if not (r[2] <= address and address + count <= r[2] + r[3])]
            assert torn == [], (address, count)
