"""The controller dies in mid-control: what the product does by itself, and what the next start does where it does
nothing."""

import pytest

from gateway.domain.commands import CommandOp, CommandResult
from gateway.domain.fleet.columns import Authority
from gateway.domain.journal.changes import ControlEnded, ControlTaken, PriorRestored
from tests.conformance.rig import CODECS, STEERED, STEP_S, Rig, bench

TIMED = [name for name in STEERED if CODECS[name].facts.timed]
UNTIMED = [name for name in STEERED if not CODECS[name].facts.timed]
UNATTENDED_S = 600.0


async def dies_under(rig: Rig, setpoint_w: float) -> None:
    """A setpoint is in force, then nothing more comes."""
    assert await rig.power(setpoint_w) == rig.done
    await rig.detach()


def test_every_steered_product_is_tried() -> None:
    assert sorted(TIMED + UNTIMED) == STEERED
    assert TIMED
    assert UNTIMED


@pytest.mark.parametrize("setpoint_w", [1500, -1200], ids=["discharging", "charging"])
@pytest.mark.parametrize("name", TIMED)
async def test_death_device_reverts_in_the_declared_time_to_the_declared_mode(name: str, setpoint_w: float) -> None:
    async with bench(name) as rig:
        await dies_under(rig, setpoint_w)
        await rig.go(0.5 * rig.watchdog.lease_s)
        assert rig.controlled(), "a refresh in time would have come too late"
        await rig.go(rig.unlocked_s - 0.5 * rig.watchdog.lease_s)
        assert not rig.controlled()
        await rig.settle()
        assert abs(rig.plant.battery_w - setpoint_w) > 200
        rig.attach()
        await rig.ready()
        if rig.reads_mode:
            await rig.until(lambda: rig.in_own_mode(rig.heard.live[-1]["mode"]), "the declared mode")


@pytest.mark.parametrize("name", TIMED)
async def test_death_leases_of_any_length_end_in_time(name: str) -> None:
    """A shorter lease than the product's whole one, where the timer is ours to set."""
    async with bench(name) as rig:
        lease_s = max(1.0, rig.watchdog.lease_s / 2)
        assert await rig.tell(CommandOp.SETPOINT, 1500, lease_s=lease_s) == rig.done
        await rig.detach()
        await rig.go(rig.unlocked_s)
        assert not rig.controlled()


@pytest.mark.parametrize("name", TIMED)
async def test_death_settings_are_restored_by_the_next_start(name: str) -> None:
    """The device's own timer ends control, not what control had touched of its settings."""
    async with bench(name) as rig:
        before = rig.face.settings()
        await rig.dispatch(-1200, s=300)
        await rig.tick_until(lambda: abs(rig.plant.battery_w + 1200) < 150, "the power of the event")
        await rig.detach()
        await rig.go(UNATTENDED_S)
        rig.attach()
        await rig.ready()
        await rig.go(1.5 * rig.watchdog.lease_s)
        await rig.tick_until(lambda: rig.authority is Authority.DEVICE and rig.prior == {}, "the end of control")
        await rig.go(rig.unlocked_s)
        assert not rig.controlled()
        assert rig.face.settings() == before


@pytest.mark.parametrize("name", TIMED)
async def test_lease_that_nobody_renews_ends_with_the_settings_restored(name: str) -> None:
    """The gateway lives, but its commands end: the device reverts, and what control had touched is put back."""
    async with bench(name) as rig:
        before = rig.face.settings()
        assert await rig.power(-1200) == rig.done
        await rig.go(rig.unlocked_s + 2.5 * rig.watchdog.lease_s)
        await rig.until(lambda: rig.prior == {}, "what was saved to be restored")
        await rig.go(rig.unlocked_s)
        assert not rig.controlled()
        assert rig.face.settings() == before


@pytest.mark.parametrize("part", [1.0, 0.6], ids=["whole", "shorter"])
@pytest.mark.parametrize("name", TIMED)
async def test_lease_that_nobody_renews_ends_no_later_than_the_look_ahead_counts(name: str, part: float) -> None:
    """The gateway lives and gives no more commands: what goes on by itself (a target followed, a heartbeat) keeps
    nobody under control for longer than limits and authority count on."""
    async with bench(name) as rig:
        facts = rig.codec.facts
        began_ms = rig.clock.mono_ms()

        async def at(s: float) -> None:
            await rig.go(s - (rig.clock.mono_ms() - began_ms) / 1000)

        assert await rig.tell(CommandOp.SETPOINT, 1500, lease_s=round(part * facts.lease_s)) == rig.done
        await at(0.4 * part * facts.lease_s)
        assert rig.controlled()
        await at(round(part * facts.lease_s) + facts.overrun_s + STEP_S)
        assert not rig.controlled()


@pytest.mark.parametrize("name", UNTIMED)
async def test_death_where_nothing_reverts_the_next_start_releases(name: str) -> None:
    async with bench(name) as rig:
        before = rig.face.settings()
        await rig.dispatch(1500, s=300)
        await rig.tick_until(lambda: abs(rig.plant.battery_w - 1500) < 150, "the power of the event")
        assert [change.devices for change in rig.journal.kept if isinstance(change, ControlTaken)] == [("bench",)]
        saves = set(rig.sequences.saves)
        assert rig.saved == saves
        await rig.detach()
        await rig.go(UNATTENDED_S)
        assert rig.controlled(), "nothing ends it but us"
        rig.attach()
        await rig.ready()
        await rig.tick_until(lambda: not rig.controlled(), "the release")
        await rig.tick_until(lambda: rig.authority is Authority.DEVICE, "the end of control")
        assert rig.face.settings() == before
        assert rig.prior == {}
        assert any(isinstance(change, ControlEnded) for change in rig.journal.kept)
        assert any(isinstance(change, PriorRestored) for change in rig.journal.kept)
        await rig.settle()
        assert abs(rig.plant.battery_w - 1500) > 200


@pytest.mark.parametrize("name", UNTIMED)
async def test_death_twice_the_settings_are_those_from_before_the_first(name: str) -> None:
    """A second start under control must not take what the first had written for the owner's settings."""
    async with bench(name) as rig:
        before = rig.face.settings()
        await rig.dispatch(1500, s=3600)
        await rig.tick_until(lambda: abs(rig.plant.battery_w - 1500) < 150, "the power of the event")
        saved = rig.prior
        for _ in range(2):
            await rig.detach()
            rig.attach()
            await rig.ready()
            writes = len(rig.links.writes)
            for _ in range(3):
                await rig.tick()
                await rig.fresh()
            assert len(rig.links.writes) >= writes
            assert rig.prior == saved
        await rig.cancel("event")
        await rig.tick_until(lambda: rig.authority is Authority.DEVICE, "the end of control")
        assert not rig.controlled()
        assert rig.face.settings() == before


@pytest.mark.parametrize("name", STEERED)
async def test_restart_in_mid_event_goes_on(name: str) -> None:
    async with bench(name) as rig:
        await rig.dispatch(1500, s=3600)
        await rig.tick_until(lambda: abs(rig.plant.battery_w - 1500) < 150, "the power of the event")
        await rig.detach()
        rig.attach()
        await rig.ready()
        await rig.tick_until(
            lambda: (
                rig.authority is Authority.CONTROLLED
                and (bool(rig.heard.answers) or rig.done[1] is CommandResult.NONE)
                and abs(rig.plant.battery_w - 1500) < 150
            ),
            "the event to go on",
        )
        assert rig.controlled()
