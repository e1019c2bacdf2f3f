"""Block planning: every point once, limits kept, never torn (F29); a refused block is parted for good."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.links.modbus_plan import ADDRESSES, Block, Learned, Limits, Place, plan, split

WIDE = Limits(registers_max=125, gap_max=8)


def at(address: int, words: int = 1, *, unit: int = 1, function: int = 3) -> Place:
    return Place(
        point=f"{unit}.{function}.{address}.{words}", unit=unit, function=function, address=address, words=words
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


def test_plan_more_registers_than_allowed_are_parted_between_points_f29() -> None:
    limits = Limits(registers_max=5, gap_max=0)
    assert spans(plan([at(0, 2), at(2, 2), at(4, 2), at(6, 2)], limits)) == [(0, 4), (4, 4)]


def test_plan_split_begins_a_request_and_a_point_over_it_stays_whole_f29() -> None:
    limits = Limits(registers_max=125, gap_max=8, split_at=(10,))
    assert spans(plan([at(8, 2), at(10, 2)], limits)) == [(8, 2), (10, 2)]
    assert spans(plan([at(8), at(9, 2), at(11)], limits)) == [(8, 1), (9, 2), (11, 1)]


def test_plan_forbidden_registers_are_never_touched() -> None:
    limits = Limits(registers_max=125, gap_max=8, forbidden=((12, 13),))
    assert spans(plan([at(10), at(11), at(14), at(13)], limits)) == [(10, 2), (14, 1)]


def test_plan_hole_is_not_read_along_and_places_over_it_stay() -> None:
    learned = Learned(holes=frozenset({(1, 3, 11, 12)}))
    assert spans(plan([at(10), at(13)], WIDE, learned)) == [(10, 1), (13, 1)]
    assert spans(plan([at(10), at(11), at(13)], WIDE, learned)) == [(10, 2), (13, 1)]
    assert spans(plan([at(10, unit=2), at(13, unit=2)], WIDE, learned)) == [(10, 4)]


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
    Limits,
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


@given(places, limits_drawn, learned_drawn)
def test_plan_any_places_keeps_every_promise(wanted: list[Place], limits: Limits, learned: Learned) -> None:
    blocks = plan(wanted, limits, learned)
    covered = [place for block in blocks for place in block.places]
    readable = [place for place in wanted if limits.readable(place)]
    assert sorted(covered, key=lambda p: p.point) == sorted(readable, key=lambda p: p.point)
    assert len(blocks) <= len(readable)
    for block in blocks:
        check_block(block, limits, learned)


def check_block(block: Block, limits: Limits, learned: Learned) -> None:
    registers = set(range(block.address, block.address + block.count))
    assert block.count <= limits.registers_max
    assert max(registers) < ADDRESSES
    assert not any(first <= at <= last for at in registers for first, last in limits.forbidden)
    used: set[int] = set()
    for place in block.places:
        own = set(range(place.address, place.end))
        assert own <= registers
        assert (place.unit, place.function) == (block.unit, block.function)
        used |= own
    idle = registers - used
    assert {min(registers), max(registers)} <= used
    assert not any(set(range(a, a + limits.gap_max + 1)) <= idle for a in idle)
    holes = [h[2:] for h in learned.holes if h[:2] == (block.unit, block.function)]
    assert not any(first <= at <= last for at in idle for first, last in holes)
    splits = {s[2] for s in learned.splits if s[:2] == (block.unit, block.function)} | set(limits.split_at)
    if len(block.places) > 1:
        assert not any(s in registers and s != block.address for s in splits)


@given(places)
def test_split_any_refused_block_ends_at_single_places(wanted: list[Place]) -> None:
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
