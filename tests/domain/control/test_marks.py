"""Marks of commands: whatever becomes of them, the columns say of each device what its newest command makes of it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.commands import CommandBatch, CommandOp, CommandResult
from gateway.domain.control.marks import confirm, mark, standing, undo
from gateway.domain.fleet.columns import Authority, ControlColumns

N = 4
OPS = [CommandOp.SETPOINT, CommandOp.HOLD, CommandOp.BLOCK, CommandOp.RELEASE]
HOLDER = np.arange(N, dtype=np.int32)


def batch(slots: list[int], op: CommandOp, cmd: int, setpoint_w: int = 1_000) -> CommandBatch:
    n = len(slots)
    return CommandBatch(
        slots=np.array(slots, dtype=np.int32), op=np.full(n, op, dtype=np.int8),
        setpoint_w=np.full(n, setpoint_w if op is CommandOp.SETPOINT else 0, dtype=np.int64),
        lease_s=np.full(n, 0 if op is CommandOp.RELEASE else 60, dtype=np.int64), reserve_pct=np.full(n, np.nan),
        cmd=np.arange(cmd, cmd + n), valid_until_ms=np.full(n, 0),
    )  # fmt: skip


def columns(control: ControlColumns) -> dict[str, list[object]]:
    return {name: control.column(name).astype(object).tolist() for name in control.SPEC}


def same(one: dict[str, list[object]], other: dict[str, list[object]]) -> bool:
    # NaN, of what nobody knows, is equal to itself here
    return str(one) == str(other)


SLOTS = st.lists(st.integers(0, N - 1), unique=True, min_size=1)


@given(SLOTS, st.sampled_from(OPS), SLOTS, st.sampled_from(OPS))
def test_marks_that_are_undone_leave_the_columns_as_they_were(
    first: list[int], op: CommandOp, second: list[int], other: CommandOp
) -> None:
    control = ControlColumns(N)
    confirm(control, mark(control, batch(first, op, 1), HOLDER, 1_000), 2_000)
    before = columns(control)
    marks = mark(control, batch(second, other, 11, 2_000), HOLDER, 3_000)
    undo(control, marks, np.ones(len(second), dtype=np.bool_))
    assert same(columns(control), before)
    assert not standing(control, marks).any()


@given(SLOTS, st.sampled_from(OPS))
def test_marks_of_an_older_command_touch_no_newer_one(slots: list[int], op: CommandOp) -> None:
    control = ControlColumns(N)
    older = mark(control, batch(slots, op, 1), HOLDER, 1_000)
    mark(control, batch(slots, CommandOp.SETPOINT, 11), HOLDER, 2_000)
    before = columns(control)
    undo(control, older, np.ones(len(slots), dtype=np.bool_))
    confirm(control, older, 3_000)
    assert same(columns(control), before)


def test_marks_that_are_confirmed_count_the_lease_from_the_write() -> None:
    control = ControlColumns(N)
    marks = mark(control, batch([0, 2], CommandOp.SETPOINT, 1), HOLDER, 1_000)
    assert control.lease_end_mono_ms[[0, 2]].tolist() == [61_000] * 2
    confirm(control, marks, 4_000)
    assert control.lease_end_mono_ms[[0, 2]].tolist() == [64_000] * 2
    assert control.authority.tolist() == [Authority.CONTROLLED, Authority.DEVICE] * 2
    assert control.event[[0, 2]].tolist() == [0, 2]


def test_marks_of_a_command_that_its_device_has_applied_stand_whatever_the_write_says() -> None:
    control = ControlColumns(N)
    marks = mark(control, batch([0, 1], CommandOp.SETPOINT, 1), HOLDER, 1_000)
    control.cmd_applied[1], control.result[1] = 2, CommandResult.APPLIED
    undo(control, marks, np.ones(2, dtype=np.bool_))
    assert standing(control, marks).tolist() == [False, True]
    assert control.setpoint_w[:2].tolist() == [0, 1_000]


def test_answer_to_a_command_that_did_not_go_out_as_far_as_is_known_is_kept() -> None:
    control = ControlColumns(N)
    marks = mark(control, batch([0, 1], CommandOp.SETPOINT, 1), HOLDER, 1_000)
    control.result[0] = CommandResult.REFUSED
    undo(control, marks, np.ones(2, dtype=np.bool_))
    assert control.result[:2].tolist() == [CommandResult.REFUSED, CommandResult.NONE]
    assert control.setpoint_w[:2].tolist() == [0, 0]
