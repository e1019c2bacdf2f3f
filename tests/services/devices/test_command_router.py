"""Commands go to the link that serves the device's profile; reports come back in the batch's order."""

import numpy as np

from gateway.domain.commands import CommandBatch, CommandOp, WriteOutcome, WriteReport
from gateway.domain.fleet.fleet import Fleet
from gateway.services.devices.command_router import CommandRouter
from tests.builders.fakes import FACTS, home


class Link:
    """Takes everything with one answer and remembers whom it was told about."""

    def __init__(self, answer: WriteOutcome) -> None:
        self.answer = answer
        self.slots: list[list[int]] = []

    async def write(self, batch: CommandBatch, *, deadline_mono_ms: int) -> WriteReport:
        self.slots.append(batch.slots.tolist())
        return WriteReport(delivery=np.full(len(batch), int(self.answer), dtype=np.int8))


def _fleet() -> Fleet:
    fleet = Fleet()
    for i, profile in enumerate(("spoken", "polled", "spoken", "polled")):
        fleet.register(home(f"home-{i}", profile=profile), FACTS)
    return fleet


def _batch(*slots: int) -> CommandBatch:
    n = len(slots)
    return CommandBatch(
        slots=np.array(slots, dtype=np.int32), op=np.full(n, int(CommandOp.HOLD), dtype=np.int8),
        setpoint_w=np.zeros(n, dtype=np.int64), lease_s=np.full(n, 60), reserve_pct=np.full(n, np.nan),
        cmd=np.arange(1, n + 1), valid_until_ms=np.full(n, 1 << 60),
    )  # fmt: skip


async def test_write_mixed_batch_is_split_and_reports_keep_their_order() -> None:
    fleet, main, other = _fleet(), Link(WriteOutcome.ACCEPTED), Link(WriteOutcome.NOT_SENT)
    router = CommandRouter(fleet, main, [(frozenset({fleet.profiles.index("polled")}), other)])
    report = await router.write(_batch(3, 0, 1, 2), deadline_mono_ms=0)
    assert (main.slots, other.slots) == ([[0, 2]], [[3, 1]])
    assert [WriteOutcome(d) for d in report.delivery.tolist()] == [
        WriteOutcome.NOT_SENT, WriteOutcome.ACCEPTED, WriteOutcome.NOT_SENT, WriteOutcome.ACCEPTED,
    ]  # fmt: skip


async def test_write_one_link_s_devices_only_the_other_is_left_alone() -> None:
    fleet, main, other = _fleet(), Link(WriteOutcome.ACCEPTED), Link(WriteOutcome.ACCEPTED)
    router = CommandRouter(fleet, main, [(frozenset({fleet.profiles.index("polled")}), other)])
    await router.write(_batch(1), deadline_mono_ms=0)
    await router.write(_batch(0, 2), deadline_mono_ms=0)
    assert (main.slots, other.slots) == ([[0, 2]], [[1]])
