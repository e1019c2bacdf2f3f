"""Histories of settlement: devices that repeat, reorder, reboot and err, imports and removals, profiles that are away,
receivers that are ill, clocks that step, disks that hang, restarts and kills. Judged from the devices' and the
receiver's own books, see `tests/scenes/settlement_judge`.

The small count runs with every test; `make test-deep` makes many more, and `python -m tests.settlement_histories`
as many as are asked for.
"""

import pytest

from tests.depth import SEED, deep
from tests.scenes.settlement_histories import COUNTING, Action, Search, play

HERE = ("reference-mqtt", "reference-mqtt")
SEEDS = 5


@pytest.mark.parametrize("part", range(SEEDS))
def test_settlement_history_loses_nothing_counts_nothing_twice_and_ends_with_the_newest_of_everything(
    part: int,
) -> None:
    Search().run(SEED + part, deep(500, else_=5))


@pytest.mark.parametrize("how", ["refuses", "busy", "empty", "foreign", "closes", "loses", "garbles"])
def test_receiver_that_was_ill_in_any_way_has_everything_once_it_is_well(how: str) -> None:
    ill: list[tuple[Action, int]] = [(("nothing",), 70), (("receiver", how), 140), (("hold", 0, 7), 140)]
    play(HERE, ill)


def test_clock_that_steps_forward_while_an_event_runs_leaves_energy_in_the_intervals_of_the_devices() -> None:
    play(HERE, [(("event", True), 140), (("clock", 1_200), 300), (("clock", 0), 140)])


def test_clock_that_steps_back_while_an_event_runs_leaves_energy_in_the_intervals_of_the_devices() -> None:
    play(HERE, [(("event", True), 140), (("clock", -1_200), 300), (("clock", 0), 140)])


def test_device_that_is_ahead_while_the_clock_is_behind_loses_no_energy() -> None:
    play(HERE, [(("off", 0, 240), 0), (("clock", -240), 10)])


@pytest.mark.xfail(strict=True, reason="a counter's reading from before the first one that is known gives no energy")
def test_messages_that_are_read_after_later_ones_of_another_product_have_their_energy() -> None:
    again: Action = ("import", 0, "reference-mqtt")
    play((None, "reference-mqtt"), [(("import", 0, "second"), 10), (again, 0)], strict=True)


def test_registry_history_does_not_overlap_where_the_clock_is_set_back_between_two_changes() -> None:
    play(HERE, [(("clock", 1_200), 70), (("remove", 0), 0)])


def test_device_that_is_imported_late_has_all_it_sent_before_in_the_intervals_of_its_times() -> None:
    play((None, None), [(("import", 0, "second"), 140), (("import", COUNTING, "reference-mqtt"), 70)])


def test_messages_of_the_product_that_a_device_was_are_kept_and_stop_nobody() -> None:
    play(HERE, [(("repeat", 0, 1), 0), (("import", 0, "second"), 0), (("repeat", 0, 5), 70)])


def test_kill_with_a_disk_that_hangs_has_acknowledged_nothing_that_is_lost() -> None:
    play(HERE, [(("disk", "hangs"), 70), (("kill", 3), 140)])
