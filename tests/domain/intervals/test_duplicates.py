"""Duplicate windows against a plain set per boot."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.intervals.duplicates import WINDOW, Seen, Sifted, sift


def sifted(seen: Seen, rows: list[tuple[int, int, int]]) -> Sifted:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return sift(seen, columns[:, 0].astype(np.int32), columns[:, 1], columns[:, 2])


@dataclass
class Device:
    """What one device sent, as sets."""

    boots: dict[int, set[int]] = field(default_factory=dict)

    def judge(self, boot: int, seq: int) -> str:
        if boot in self.boots:
            if max(self.boots[boot]) - seq >= WINDOW:
                return "old"
            return "repeated" if seq in self.boots[boot] else "new"
        return "old" if len(self.boots) == 2 and boot < min(self.boots) else "new"

    def take(self, rows: list[tuple[int, int]]) -> None:
        for boot, seq in rows:
            self.boots.setdefault(boot, set()).add(seq)
        self.boots = {boot: self.boots[boot] for boot in sorted(self.boots)[-2:]}


rows_of_a_batch = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 150)), max_size=40)


@given(batches=st.lists(rows_of_a_batch, max_size=8))
def test_sift_random_batches_agrees_with_sets(batches: list[list[tuple[int, int, int]]]) -> None:
    seen = Seen(3)
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
        assert outcome.new.tolist() == [v == "new" for v in verdicts]
        assert outcome.too_old == verdicts.count("old")
        assert outcome.duplicates == verdicts.count("repeated")


steps = st.tuples(st.integers(0, 2), st.integers(1, 3) | st.integers(WINDOW - 2, WINDOW + 1))
steps_of_a_batch = st.lists(steps, unique_by=lambda step: step[0], min_size=1)


@given(batches=st.lists(steps_of_a_batch, min_size=1, max_size=8))
def test_sift_rows_in_order_agree_with_sets_and_are_repeated_afterwards(batches: list[list[tuple[int, int]]]) -> None:
    """What a fleet sends on a good day: a row of each device, beyond all before it."""
    seen = Seen(3)
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
    seen = Seen(1)
    assert sifted(seen, [(0, 1, 500)]).gaps == 0
    assert sifted(seen, [(0, 1, 504), (0, 1, 502)]).gaps == 2
    assert sifted(seen, [(0, 1, 503)]).gaps == 0
    assert sifted(seen, [(0, 2, 3)]).gaps == 2


@pytest.mark.parametrize(("behind", "new"), [(WINDOW - 1, True), (WINDOW, False)])
def test_sift_row_at_the_end_of_the_window_is_new_only_inside(behind: int, new: bool) -> None:
    seen = Seen(1)
    sifted(seen, [(0, 1, 1000)])
    assert sifted(seen, [(0, 1, 1000 - behind)]).new.tolist() == [new]


def test_sift_previous_boot_is_remembered_and_the_one_before_is_not() -> None:
    seen = Seen(1)
    for boot in (1, 2, 3):
        sifted(seen, [(0, boot, 1)])
    outcome = sifted(seen, [(0, 3, 1), (0, 2, 1), (0, 2, 2), (0, 1, 2)])
    assert outcome.new.tolist() == [False, False, True, False]
    assert (outcome.duplicates, outcome.too_old) == (2, 1)
