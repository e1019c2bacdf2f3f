"""Every run of a scene is the same run: each byte on the wire, which way and at which moment of virtual time."""

import asyncio
import re
from collections.abc import Sequence

import pytest

from gateway.domain.commands import CommandOp
from simulators.faces.plant import Trouble
from tests.conformance.rig import bench
from tests.depth import deep
from tests.virtual.loop import VirtualLoop

# One of each kind: registers and a loop over load and PV, HTTP, a client of our broker, a broker of its own.
SCENES = ("foxess-h3", "sonnen-v2", "hoymiles-ms-a2", "victron-gx-mqtt")
# The calendar of the machine, and the one name of a client that is made up anew.
CALENDAR = (rb"Date: [^\r]+", rb'"value":1[0-9]{9}\b', rb"gateway-[0-9a-f]{12}")
Event = tuple[float, str, int, int, bytes]


def trace_of(name: str) -> list[Event]:
    """(virtual seconds, "sent" or "read", own port, the peer's, bytes) of everything on the wire of one scene."""
    events: list[Event] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)

        def heard(what: str, own: tuple[str, int], peer: tuple[str, int], data: bytes) -> None:
            for pattern in CALENDAR:
                data = re.sub(pattern, b"*", data)
            events.append((loop.time(), what, own[1], peer[1], data))

        loop.network.on_bytes = heard
        await _scene(name)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    return events


async def _scene(name: str) -> None:
    """Dispatched and restarted in mid-event, lost and found again, rebooted, released."""
    async with bench(name) as rig:
        await rig.dispatch(1500, s=3600)
        await rig.tick_until(lambda: abs(rig.plant.battery_w - 1500) < 150, "the power of the event")
        await rig.detach()
        rig.attach()
        await rig.ready()
        rig.face.trouble = Trouble.SILENT
        await rig.go(90.0)
        rig.face.trouble = Trouble.NONE
        await rig.back()
        rig.face.reboot()
        await rig.go(5.0)
        await rig.back()
        assert await rig.power(-1200) == rig.done
        await rig.expect_w(-1200)
        assert await rig.tell(CommandOp.RELEASE) == rig.done


def differ(first: Sequence[Event], other: Sequence[Event]) -> str:
    """Where two traces part."""
    for n, (one, two) in enumerate(zip(first, other, strict=False)):
        if one != two:
            return f"event {n}: {one} and {two}"
    return f"{len(first)} and {len(other)} events" if len(first) != len(other) else ""


@pytest.mark.parametrize("name", SCENES)
def test_scene_is_the_same_in_every_run(name: str) -> None:
    first = trace_of(name)
    assert len(first) > 100
    for n in range(deep(200, else_=2)):
        assert differ(first, trace_of(name)) == "", f"repetition {n}"
