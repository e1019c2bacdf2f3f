"""Block planning: every point once, limits kept, never torn (F29); a refused block is parted for good."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.links.modbus.blocks import ADDRESSES, Block, Learned, RegisterPlace, RequestLimits, bundled, plan, split

WIDE = RequestLimits(registers_max=125, gap_max=8)


def at(
    address: int, words: int = 1, *, unit: int = 1, function: int = 3, by: RegisterPlace | None = None
) -> RegisterPlace:
    """A place; `by` is where its scale factor lies."""
    return RegisterPlace(
        point=f"{unit}.{function}.{address}.{words}",
        unit=unit,
        function=function,
        address=address,
        words=words,
        factor=by.point if by is not None else "",
    )


def spans(blocks: tuple[Block, ...]) -> list[tuple[int, int]]:
    return [(block.address, block.count) for block in blocks]


def test_plan_contiguous_places_are_one_request() -> None:
    assert spans(plan([at(100 + 2 * i, 2) for i in range(30)], WIDE)) == [(100, 60)]


def test_plan_gap_within_limit_is_read_along() -> None:
    assert spans(plan([at(100), at(109)], WIDE)) == [(100, 10)]
    assert spans(plan([at(100), at(110)], WIDE)) == [(100, 1), (110, 1)]


def test_plan_units_and_functions_are_never_mixed() -> None:
    assert len(plan([at(1), at(2, unit=2), at(3, function=4)], WIDE)) == 3


@pytest.mark.fault("F29")
def test_plan_more_registers_than_allowed_are_parted_between_points() -> None:
    limits = RequestLimits(registers_max=5, gap_max=0)
    assert spans(plan([at(0, 2), at(2, 2), at(4, 2), at(6, 2)], limits)) == [(0, 4), (4, 4)]


@pytest.mark.fault("F29")
def test_plan_split_begins_a_request_and_a_point_over_it_stays_whole() -> None:
    limits = RequestLimits(registers_max=125, gap_max=8, split_at=(10,))
    assert spans(plan([at(8, 2), at(10, 2)], limits)) == [(8, 2), (10, 2)]
    assert spans(plan([at(8), at(9, 2), at(11)], limits)) == [(8, 1), (9, 2), (11, 1)]


def test_plan_forbidden_registers_are_never_touched() -> None:
    limits = RequestLimits(registers_max=125, gap_max=8, forbidden=((12, 13),))
    assert spans(plan([at(10), at(11), at(14), at(13)], limits)) == [(10, 2), (14, 1)]


def test_plan_hole_is_not_read_along_and_places_over_it_stay() -> None:
    learned = Learned(holes=frozenset({(1, 3, 11, 12)}))
    assert spans(plan([at(10), at(13)], WIDE, learned)) == [(10, 1), (13, 1)]
    assert spans(plan([at(10), at(11), at(13)], WIDE, learned)) == [(10, 2), (13, 1)]
    assert spans(plan([at(10, unit=2), at(13, unit=2)], WIDE, learned)) == [(10, 4)]


FACTOR = at(4)


def test_plan_value_is_read_with_its_factor_over_any_gap() -> None:
    assert spans(plan([FACTOR, at(60, by=FACTOR), at(40, by=FACTOR)], WIDE)) == [(4, 57)]
    limits = replace(WIDE, split_at=(30,))
    assert spans(plan([FACTOR, at(60, by=FACTOR), at(65)], limits)) == [(4, 57), (65, 1)]


def test_plan_bundles_that_lie_in_each_other_share_a_request_where_it_fits() -> None:
    other = at(5)
    both = [FACTOR, at(60, by=FACTOR), other, at(90, by=other)]
    assert spans(plan(both, WIDE)) == [(4, 87)]
    assert spans(plan(both, replace(WIDE, registers_max=86))) == [(4, 57), (5, 86)]


def test_plan_value_without_its_factor_is_left_out() -> None:
    alone = [at(60, by=FACTOR), at(61)]
    assert spans(plan(alone, WIDE)) == [(61, 1)]
    elsewhere = [at(4, unit=2), replace(at(60), factor="2.3.4.1"), at(61)]
    assert spans(plan(elsewhere, WIDE)) == [(61, 1), (4, 1)]


def test_plan_bundle_that_no_request_can_hold_is_left_out() -> None:
    bundle = [FACTOR, at(60, by=FACTOR)]
    assert plan(bundle, replace(WIDE, registers_max=56)) == ()
    assert plan(bundle, replace(WIDE, forbidden=((30, 30),))) == ()
    assert plan(bundle, WIDE, Learned(holes=frozenset({(1, 3, 30, 30)}))) == ()
    assert spans(plan(bundle, replace(WIDE, registers_max=57))) == [(4, 57)]


def test_split_never_parts_a_bundle() -> None:
    other = at(5)
    (block,) = plan([FACTOR, at(60, by=FACTOR), other, at(90, by=other)], WIDE)
    assert list(split(block)) == [5]
    learned = Learned(splits=frozenset({(1, 3, 5)}))
    again = plan(block.places, WIDE, learned)
    assert spans(again) == [(4, 57), (5, 86)]
    assert [list(split(part)) for part in again] == [[], []]


def test_split_parts_at_gaps_first_then_in_the_middle() -> None:
    (gapped,) = plan([at(10), at(11), at(14)], WIDE)
    assert list(split(gapped)) == [14]
    (whole,) = plan([at(10), at(11), at(12), at(13)], WIDE)
    assert list(split(whole)) == [12]
    (single,) = plan([at(10)], WIDE)
    assert list(split(single)) == []


places = st.lists(
    st.builds(
        at,
        st.integers(0, 300) | st.integers(ADDRESSES - 20, ADDRESSES - 1),
        st.sampled_from((1, 1, 2, 4, 16)),
        unit=st.sampled_from((1, 2)),
        function=st.sampled_from((3, 4)),
    ),
    unique_by=lambda place: place.point,
    max_size=40,
)
ranges = st.lists(st.tuples(st.integers(0, 310), st.integers(0, 5)).map(lambda r: (r[0], r[0] + r[1])), max_size=4).map(
    tuple
)
limits_drawn = st.builds(
    RequestLimits,
    registers_max=st.integers(1, 125),
    gap_max=st.integers(0, 30),
    split_at=st.lists(st.integers(0, 310), max_size=5).map(tuple),
    forbidden=ranges,
)
learned_drawn = st.builds(
    Learned,
    holes=ranges.map(lambda found: frozenset((1, 3, first, last) for first, last in found)),
    splits=st.frozensets(st.tuples(st.just(1), st.just(3), st.integers(0, 310)), max_size=4),
)


def scaled(drawn: list[RegisterPlace], factors: int, chosen: list[int | None]) -> list[RegisterPlace]:
    """Of `drawn`, the first are factors; of the others each has one of them or none, as `chosen`."""
    known, others = drawn[:factors], drawn[factors:]
    by = (known[number % len(known)] if known and number is not None else None for number in chosen)
    return known + [
        replace(place, factor=factor.point) if factor is not None else place
        for place, factor in zip(others, by, strict=False)
    ]


scaled_places = st.builds(
    scaled, places, st.integers(0, 10), st.lists(st.none() | st.integers(0, 9), min_size=40, max_size=40)
)


@given(scaled_places, limits_drawn, learned_drawn)
def test_plan_any_places_keeps_every_promise(
    wanted: list[RegisterPlace], limits: RequestLimits, learned: Learned
) -> None:
    blocks = plan(wanted, limits, learned)
    covered = [place for block in blocks for place in block.places]
    bundles = bundled(wanted)
    readable = [b for b in bundles if learned.applied_to(limits, b.unit, b.function).readable(b)]
    expected = [place for bundle in readable for place in bundle.places]
    assert sorted(covered, key=lambda p: p.point) == sorted(expected, key=lambda p: p.point)
    assert len(blocks) <= len(readable)
    for block in blocks:
        check_block(block, limits, learned)


@given(scaled_places)
def test_bundled_any_places_are_with_their_factor_or_nowhere(wanted: list[RegisterPlace]) -> None:
    bundles = bundled(wanted)
    where = {place.point: bundle for bundle in bundles for place in bundle.places}
    known = {place.point: place for place in wanted}
    assert len(where) == sum(len(bundle.places) for bundle in bundles)
    for place in wanted:
        factor = known.get(place.factor)
        if not place.factor:
            assert place.point in where
        elif factor is not None and (factor.unit, factor.function) == (place.unit, place.function):
            assert where[place.point] is where[place.factor]
        else:
            assert place.point not in where


def check_block(block: Block, limits: RequestLimits, learned: Learned) -> None:
    registers = set(range(block.address, block.address + block.count))
    assert block.count <= limits.registers_max
    assert max(registers) < ADDRESSES
    assert not any(first <= at <= last for at in registers for first, last in limits.forbidden)
    used: set[int] = set()
    bundled_over: set[int] = set()
    for bundle in block.bundles:
        bundled_over |= set(range(bundle.address, bundle.end))
        for place in bundle.places:
            own = set(range(place.address, place.end))
            assert own <= registers
            assert (place.unit, place.function) == (block.unit, block.function)
            used |= own
    assert {min(registers), max(registers)} <= used
    between = registers - bundled_over
    assert not any(set(range(a, a + limits.gap_max + 1)) <= between for a in between)
    holes = [h[2:] for h in learned.holes if h[:2] == (block.unit, block.function)]
    assert not any(first <= at <= last for at in registers - used for first, last in holes)
    splits = {s[2] for s in learned.splits if s[:2] == (block.unit, block.function)} | set(limits.split_at)
    if len(block.bundles) > 1:
        assert not any(s in registers and s != block.address for s in splits)


@given(places)
def test_split_any_refused_block_ends_at_single_places(wanted: list[RegisterPlace]) -> None:
    """However the device refuses, the plan comes down to what it takes."""
    learned = Learned()
    for _ in range(len(wanted) + 1):
        blocks = plan(wanted, WIDE, learned)
        parts = {(b.unit, b.function, at) for b in blocks for at in split(b)}
        if not parts:
            break
        assert not parts <= learned.splits
        learned = Learned(splits=learned.splits | parts)
    for block in plan(wanted, WIDE, learned):
        ends = [(place.address, place.end) for place in block.places]
        assert all(any(a < d and c < b for c, d in ends if (a, b) != (c, d)) for a, b in ends if len(ends) > 1)
