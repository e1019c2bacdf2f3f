"""Which registers are read in one request. Pure: places and limits in, blocks out."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gateway.profiles.transport_schema import ModbusSection

ADDRESSES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a point lies: `words` registers from `address`, read by `function` from `unit`."""

    point: str
    unit: int
    function: int
    address: int
    words: int

    @property
    def end(self) -> int:
        """The first register after it."""
        return self.address + self.words


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may cover. Ranges are (first, last); `split_at` registers begin a new request, `forbidden` ones
    are never touched, `holes` are not read along between places."""

    registers_max: int
    gap_max: int
    split_at: tuple[int, ...] = ()
    forbidden: tuple[tuple[int, int], ...] = ()
    holes: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, section: ModbusSection) -> "Limits":
        return cls(
            registers_max=section.registers_max,
            gap_max=section.gap_max,
            split_at=section.split_at,
            forbidden=section.forbidden,
        )

    def readable(self, place: Place) -> bool:
        """Whether a request may hold the whole place."""
        fits = place.words <= self.registers_max and place.end <= ADDRESSES
        return fits and not _meet(self.forbidden, place.address, place.end)

    def joins(self, start: int, end: int, place: Place) -> bool:
        """Whether a request for registers `start` to before `end` may be made longer to take in `place`."""
        reach = max(end, place.end)
        return (
            place.address - end <= self.gap_max
            and reach - start <= self.registers_max
            and not any(start < split < reach for split in self.split_at)
            and not _meet(self.forbidden, start, reach)
            and not _meet(self.holes, end, place.address)
        )


def _meet(ranges: tuple[tuple[int, int], ...], start: int, end: int) -> bool:
    """Whether registers `start` to before `end` include one of `ranges`."""
    return any(first < end and start <= last for first, last in ranges) if start < end else False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One request and the places it fills."""

    unit: int
    function: int
    address: int
    count: int
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a device has refused: registers it does not have (`holes`) and where a request must end (`splits`), each as
    (unit, function, ...)."""

    holes: frozenset[tuple[int, int, int, int]] = frozenset()
    splits: frozenset[tuple[int, int, int]] = frozenset()

    def applied_to(self, limits: Limits, unit: int, function: int) -> Limits:
        """`limits` as they are for one unit and function."""
        key = (unit, function)
        holes = tuple((first, last) for u, f, first, last in self.holes if (u, f) == key)
        splits = tuple(split for u, f, split in self.splits if (u, f) == key)
        if not holes and not splits:
            return limits
        return Limits(
            registers_max=limits.registers_max,
            gap_max=limits.gap_max,
            split_at=limits.split_at + splits,
            forbidden=limits.forbidden,
            holes=holes,
        )


NOTHING_LEARNED = Learned()


def plan(places: Iterable[Place], limits: Limits, learned: Learned = NOTHING_LEARNED) -> tuple[Block, ...]:
    """Blocks that cover every readable place exactly once, none of them torn; unreadable ones are left out.

    Never more blocks than places: registers between two places are read along where the limits allow it. A place that
    itself spans a split stays whole and alone.
    """
    blocks: list[Block] = []
    grouped: dict[tuple[int, int], list[Place]] = {}
    for place in places:
        grouped.setdefault((place.unit, place.function), []).append(place)
    for (unit, function), members in sorted(grouped.items(), key=lambda item: item[0]):
        own = learned.applied_to(limits, unit, function)
        members.sort(key=lambda place: (place.address, place.words))
        blocks += _blocks([place for place in members if own.readable(place)], own)
    return tuple(blocks)


def _blocks(places: list[Place], limits: Limits) -> Iterable[Block]:
    """`places` are of one unit and function, sorted by address."""
    run: list[Place] = []
    end = 0
    for place in places:
        if run and limits.joins(run[0].address, end, place):
            run.append(place)
            end = max(end, place.end)
            continue
        if run:
            yield _block(run, end)
        run, end = [place], place.end
    if run:
        yield _block(run, end)


def _block(run: list[Place], end: int) -> Block:
    first = run[0]
    return Block(
        unit=first.unit,
        function=first.function,
        address=first.address,
        count=end - first.address,
        places=tuple(run),
    )


def split(block: Block) -> Collection[int]:
    """Where to part a block that was refused although each of its places was not: at its gaps, else in the middle."""
    starts: list[int] = []
    inner: list[int] = []
    end = block.places[0].end
    for place in block.places[1:]:
        if place.address > end:
            starts.append(place.address)
        elif place.address == end:
            inner.append(place.address)
        end = max(end, place.end)
    if starts:
        return starts
    return inner[len(inner) // 2 : len(inner) // 2 + 1]
