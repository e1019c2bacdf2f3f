"""Histories of the aggregator and us: webhooks late, twice, lost and in any order, searches that fail and answers that
are old, enrollments that change there and here, and a process that ends anywhere, also between what it stored and what
it answered. In the end both say the same; and what a search has shown is undone by nothing older meanwhile.

The small count runs with every test; `make test-deep` makes many more, and `python -m tests.leap_histories` as many as
are asked for.
"""

import pytest

from tests.depth import SEED, deep
from tests.scenes.in_step_histories import Search, play

pytestmark = pytest.mark.real_time

SEEDS = 3
SLOT = ("dispatch", 0, 2, 1, 2.5, 4, "CEC-DSGS")
CHANGED = ("dispatch", 0, 2, 2, 1.0, 4, "CEC-DSGS")


@pytest.mark.parametrize("part", range(SEEDS))
def test_whatever_comes_in_whatever_order_ends_in_the_same_book_and_the_same_enrollments(part: int) -> None:
    Search().run(SEED + part, deep(3_000, else_=80))


def test_webhook_that_comes_after_a_newer_one_and_a_search_undoes_neither() -> None:
    play([(SLOT, 0), (("sync",), 1), (("push", [0]), 0), (CHANGED, 0), (("push", [0]), 0), (("deliver", 1, False), 1),
          (("search",), 1), (("deliver", 0, True), 1), (("deliver", 0, False), 1)])  # fmt: skip


@pytest.mark.parametrize("points", range(10))
def test_process_that_ends_between_what_it_stores_and_what_it_answers_is_followed_by_one_that_says_the_same(
    points: int,
) -> None:
    kill, push = (("kill", points), 0), (("push", [0]), 0)
    play([kill, (("sync",), 0), (SLOT, 0), push, kill, (("deliver", 0, True), 0), (CHANGED, 0), push, (("cut", 1), 0),
          (("deliver", 0, False), 5)])  # fmt: skip


def test_row_that_speaks_of_a_later_time_does_not_keep_out_what_the_aggregator_says_of_now() -> None:
    play([(("our word of a meter", 0, "INELIGIBLE", "2027-03-01T00:00:00Z"), 0), (("sync",), 0)])


def test_owner_who_sits_out_from_before_their_first_word_sits_out_and_takes_part_again_when_it_is_taken_back() -> None:
    play([(("sync",), 0), (("idle", 0, -1, 2), 0)])
    play([(("sync",), 0), (("idle", 0, 0, 3), 0), (("sync",), 0), (("active", 0, -1), 0)])
