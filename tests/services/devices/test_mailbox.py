"""One command waits for a session, the newest; whoever left one learns what became of it."""

import asyncio
import math

from gateway.domain.commands import CommandOp, WriteOutcome
from gateway.services.devices.device_control import Command
from gateway.services.devices.mailbox import Mailbox, not_sent
from gateway.services.devices.session_state import SessionStats


def command(cmd: int) -> Command:
    return Command(op=CommandOp.RELEASE, setpoint_w=0.0, lease_s=60.0, reserve_pct=math.nan, cmd=cmd, valid_until_ms=0)


async def test_mailbox_gives_a_command_once_and_its_outcome_to_whoever_left_it() -> None:
    box = Mailbox(SessionStats())
    done = box.put(command(1))
    mail = await box.take(None)
    assert mail is not None
    assert mail.command.cmd == 1
    assert await box.take(5.0) is None
    mail.answer(WriteOutcome.ACCEPTED)
    mail.answer(WriteOutcome.UNKNOWN)
    assert await done is WriteOutcome.ACCEPTED


async def test_mailbox_newer_command_replaces_one_that_waits_which_was_not_sent() -> None:
    stats = SessionStats()
    box = Mailbox(stats)
    older, newer = box.put(command(1)), box.put(command(2))
    mail = await box.take(0.0)
    assert await older is WriteOutcome.NOT_SENT
    assert mail is not None
    assert (mail.command.cmd, newer.done(), stats.superseded) == (2, False, 1)


async def test_mailbox_tells_within_a_time_whether_a_newer_command_came_and_keeps_it() -> None:
    stats = SessionStats()
    box = Mailbox(stats)
    assert not await box.superseded(30.0)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(box.superseded(30.0), name="waiting")
        await asyncio.sleep(1.0)
        box.put(command(3))
    assert (waiting.result(), stats.superseded) == (True, 1)
    mail = await box.take(0.0)
    assert mail is not None
    assert mail.command.cmd == 3


async def test_mailbox_that_is_dropped_holds_nothing_and_says_so() -> None:
    box = Mailbox(SessionStats())
    done = box.put(command(1))
    box.drop()
    assert await done is WriteOutcome.NOT_SENT
    assert await box.take(1.0) is None
    assert await not_sent() is WriteOutcome.NOT_SENT
