"""Who may still be written when a command is about to go out, and who leaves control by itself."""

import numpy as np
import pytest

from gateway.domain.commands import CommandBatch, CommandOp
from gateway.domain.control.authority import barred, free, over, returned, unattended
from gateway.domain.control.marks import Marks, mark
from gateway.domain.fleet.columns import Authority
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.types import NEVER_MS, Grid, Mode
from tests.builders.fleets import NOW, fleet_of


def marks_of(fleet: Snapshot, op: CommandOp = CommandOp.SETPOINT) -> Marks:
    n = fleet.n
    batch = CommandBatch(
        slots=np.arange(n, dtype=np.int32), op=np.full(n, op, dtype=np.int8), setpoint_w=np.full(n, 500),
        lease_s=np.full(n, 60), reserve_pct=np.full(n, np.nan), cmd=np.arange(100, 100 + n),
        valid_until_ms=np.full(n, NOW.utc_ms),
    )  # fmt: skip
    return mark(fleet.control, batch, np.zeros(n, dtype=np.int32), NOW.mono_ms)


NOBODY = np.zeros(2, dtype=np.bool_)


@pytest.mark.parametrize(
    "says",
    [{"online": [1, 0]}, {"grid": [Grid.ON, Grid.ISLAND]}, {"locked": [0, 1]}, {"steerable": [True, False]},
     {"registered": [True, False]}],
    ids=lambda says: next(iter(says)),
)  # fmt: skip
def test_command_to_a_device_that_is_to_be_left_alone_by_now_is_barred(says: dict[str, list[int]]) -> None:
    fleet = fleet_of(2, **says)
    assert barred(fleet, marks_of(fleet), NOBODY).tolist() == [False, True]


def test_command_to_a_device_excluded_since_it_was_decided_is_barred_and_a_release_is_not() -> None:
    fleet, excluded = fleet_of(2), np.array([False, True])
    assert barred(fleet, marks_of(fleet), excluded).tolist() == [False, True]
    assert barred(fleet, marks_of(fleet, CommandOp.RELEASE), excluded).tolist() == [False, False]


def test_nothing_is_written_to_an_island() -> None:
    fleet = fleet_of(2, grid=[Grid.ON, Grid.ISLAND])
    assert barred(fleet, marks_of(fleet, CommandOp.RELEASE), NOBODY).tolist() == [False, True]


def test_device_that_went_into_its_maker_s_backup_mode_is_not_taken_but_one_that_is_ours_goes_on() -> None:
    fleet = fleet_of(2, mode=Mode.BACKUP, authority=[Authority.DEVICE, Authority.CONTROLLED])
    assert barred(fleet, marks_of(fleet), NOBODY).tolist() == [True, False]


def test_device_leaves_control_when_its_lease_has_run_out_or_its_release_is_confirmed() -> None:
    fleet = fleet_of(
        4,
        authority=[Authority.CONTROLLED, Authority.CONTROLLED, Authority.RELEASING, Authority.RELEASING],
        lease_end_mono_ms=[NOW.mono_ms - 5_000, NOW.mono_ms + 5_000, NOW.mono_ms + 5_000, NOW.mono_ms + 5_000],
        cmd_sent=[7, 7, 7, 8], cmd=0, mode=Mode.REMOTE,
    )  # fmt: skip
    found = over(fleet, NOW, command_valid_s=20.0)
    assert (found.rows.tolist(), found.run_out) == ([0, 2], 1)
    free(fleet.control, found.rows)
    assert fleet.control.authority[[0, 2]].tolist() == [Authority.DEVICE] * 2
    assert (fleet.control.lease_end_mono_ms[[0, 2]] == NEVER_MS).all()


def test_device_without_a_timer_whose_lease_was_not_renewed_is_unattended() -> None:
    fleet = fleet_of(3, timed=[True, False, False], lease_end_mono_ms=NOW.mono_ms + np.array([-1, -1, 1]))
    assert unattended(fleet, NOW).tolist() == [False, True, False]


def test_device_that_its_owner_took_back_returns_once_that_is_over() -> None:
    fleet = fleet_of(3, authority=[Authority.OWNER, Authority.OWNER, Authority.DEVICE])
    assert returned(fleet, {1}) == [0]
