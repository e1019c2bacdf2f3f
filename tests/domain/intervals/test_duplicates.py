"""Duplicates against plain sets: whatever was never received is new, whenever it comes, once."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.intervals.duplicates import WINDOW, Seen, Sifted, sift
from gateway.domain.intervals.missing import RANGES_MAX, MissingNumbers


class Memory(Seen):
    """What has been received, and what is missing."""

    def __init__(self, devices: int) -> None:
        super().__init__(devices)
        self.missing = MissingNumbers()


def sifted(seen: Memory, rows: list[tuple[int, int, int]]) -> Sifted:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return sift(seen, seen.missing, columns[:, 0].astype(np.int32), columns[:, 1], columns[:, 2])


@dataclass
class Device:
    """What one device sent, as sets; `newest` are its two newest boots."""

    boots: dict[int, set[int]] = field(default_factory=dict)

    @property
    def newest(self) -> list[int]:
        return sorted(self.boots)[-2:]

    def judge(self, boot: int, seq: int) -> str:
        known = self.boots.get(boot)
        if known is None:
            return "old" if len(self.newest) == 2 and boot < min(self.newest) else "new"
        if boot not in self.newest:
            # of a boot before those two, what it had skipped is still known
            return "new" if seq not in known and 0 < seq < max(known) else "old"
        if seq in known:
            return "old" if max(known) - seq >= WINDOW else "repeated"
        # nobody begins at 0
        return "old" if seq == 0 and max(known) >= WINDOW else "new"

    def take(self, rows: list[tuple[int, int]]) -> None:
        for boot, seq in rows:
            self.boots.setdefault(boot, set()).add(seq)


SEQS = st.integers(0, 150) | st.sampled_from([1 << 40, (1 << 40) + 1, 5_000])
rows_of_a_batch = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), SEQS), max_size=40)


@given(batches=st.lists(rows_of_a_batch, max_size=8))
def test_sift_random_batches_agrees_with_sets(batches: list[list[tuple[int, int, int]]]) -> None:
    seen = Memory(3)
    devices = [Device() for _ in range(3)]
    for rows in batches:
        verdicts = []
        fresh: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}
        for slot, boot, seq in rows:
            verdict = devices[slot].judge(boot, seq)
            if verdict == "new" and (boot, seq) in fresh[slot]:
                verdict = "repeated"
            if verdict == "new":
                fresh[slot].append((boot, seq))
            verdicts.append(verdict)
        for slot, found in fresh.items():
            devices[slot].take(found)
        outcome = sifted(seen, rows)
        if seen.missing.given_up:
            break
        assert outcome.new.tolist() == [v == "new" for v in verdicts]
        assert outcome.too_old == verdicts.count("old")
        assert outcome.duplicates == verdicts.count("repeated")


steps = st.tuples(st.integers(0, 2), st.integers(1, 3) | st.integers(WINDOW - 2, WINDOW + 1))
steps_of_a_batch = st.lists(steps, unique_by=lambda step: step[0], min_size=1)


@given(batches=st.lists(steps_of_a_batch, min_size=1, max_size=8))
def test_sift_rows_in_order_agree_with_sets_and_are_repeated_afterwards(batches: list[list[tuple[int, int]]]) -> None:
    """What a fleet sends on a good day: a row of each device, beyond all before it."""
    seen = Memory(3)
    high = [10, 20, 30]
    sifted(seen, [(slot, 7, seq) for slot, seq in enumerate(high)])
    received = {(slot, seq) for slot, seq in enumerate(high)}
    for steps in batches:
        for slot, step in steps:
            high[slot] += step
        outcome = sifted(seen, [(slot, 7, high[slot]) for slot, _ in steps])
        assert outcome.new.all()
        assert (outcome.duplicates, outcome.too_old) == (0, 0)
        assert outcome.gaps == sum(step - 1 for _, step in steps)
        received |= {(slot, high[slot]) for slot, _ in steps}
    window = [(slot, seq) for slot in range(3) for seq in range(high[slot], max(high[slot] - WINDOW, -1), -1)]
    again = sifted(seen, [(slot, 7, seq) for slot, seq in window])
    assert again.new.tolist() == [row not in received for row in window]
    assert again.too_old == 0


def test_sift_missing_numbers_counts_gaps_once() -> None:
    seen = Memory(1)
    assert sifted(seen, [(0, 1, 500)]).gaps == 0
    assert sifted(seen, [(0, 1, 504), (0, 1, 502)]).gaps == 2
    assert sifted(seen, [(0, 1, 503)]).gaps == 0
    assert sifted(seen, [(0, 2, 3)]).gaps == 2


@pytest.mark.parametrize("behind", [WINDOW - 1, WINDOW, 900])
def test_sift_row_that_was_never_received_is_new_once_however_late(behind: int) -> None:
    seen = Memory(1)
    sifted(seen, [(0, 1, 1000)])
    assert sifted(seen, [(0, 1, 1000 - behind)]).new.tolist() == [True]
    assert sifted(seen, [(0, 1, 1000 - behind)]).new.tolist() == [False]


def test_sift_one_wild_number_discards_nothing_of_its_boot() -> None:
    seen = Memory(1)
    sent = [*range(1, 200), 1 << 50, *range(200, 400)]
    for seq in sent:
        assert sifted(seen, [(0, 1, seq)]).new.tolist() == [True]
    assert not sifted(seen, [(0, 1, seq) for seq in sent]).new.any()
    assert sifted(seen, [(0, 1, seq) for seq in range(400, 500)]).new.all()
    assert len(seen.missing) <= 2


def test_sift_more_gaps_than_are_remembered_gives_up_the_oldest_and_says_so() -> None:
    seen = Memory(1)
    for seq in range(1, 4 * RANGES_MAX, 2):
        sifted(seen, [(0, 1, 1000 * seq)])
    assert (len(seen.missing), seen.missing.given_up) == (RANGES_MAX, RANGES_MAX)
    assert sifted(seen, [(0, 1, 5)]).too_old == 1


def test_missing_ranges_are_the_same_once_loaded_and_go_with_their_devices() -> None:
    seen = Memory(3)
    sifted(seen, [(0, 1, 10), (1, 1, 20), (2, 1, 30)])
    again = MissingNumbers()
    again.load(seen.missing.columns())
    again.renumber(np.array([2, -1, 0]))
    assert {name: column.tolist() for name, column in again.columns().items()} == {
        "slots": [0, 2], "boot": [1, 1], "first": [1, 1], "last": [29, 9],
    }  # fmt: skip


def test_sift_previous_boot_is_remembered_and_the_one_before_is_not() -> None:
    seen = Memory(1)
    for boot in (1, 2, 3):
        sifted(seen, [(0, boot, 1)])
    outcome = sifted(seen, [(0, 3, 1), (0, 2, 1), (0, 2, 2), (0, 1, 2)])
    assert outcome.new.tolist() == [False, False, True, False]
    assert (outcome.duplicates, outcome.too_old) == (2, 1)


def test_sift_what_an_older_boot_had_skipped_is_still_new_once() -> None:
    seen = Memory(1)
    for boot in (1, 2, 3):
        sifted(seen, [(0, boot, 1), (0, boot, 9)])
    assert sifted(seen, [(0, 1, 5)]).new.tolist() == [True]
    assert sifted(seen, [(0, 1, 5), (0, 1, 10)]).new.tolist() == [False, False]
