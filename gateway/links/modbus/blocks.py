"""Plans which registers each request reads. Pure: places and limits in, blocks out.

A scale factor moves with the value that it scales, so the plan reads both in one request or neither.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from gateway.profiles.language.transport import ModbusSection

ADDRESSES = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterPlace:
    """Where a point lies: `words` registers from `address`, read by `function` from `unit`. `factor`: the point that
    scales it, "" = none."""

    point: str
    unit: int
    function: int
    address: int
    words: int
    factor: str = ""

    @property
    def end(self) -> int:
        """The first register after it."""
        return self.address + self.words


@dataclass(frozen=True, slots=True)
class Bundle:
    """Places of one unit and function that share a request, sorted by address: a scale factor and what it scales, or
    a place alone."""

    places: tuple[RegisterPlace, ...]

    @property
    def unit(self) -> int:
        return self.places[0].unit

    @property
    def function(self) -> int:
        return self.places[0].function

    @property
    def address(self) -> int:
        return self.places[0].address

    @property
    def end(self) -> int:
        """The first register after it."""
        return max(place.end for place in self.places)

    @property
    def words(self) -> int:
        return self.end - self.address

    def gaps(self) -> Iterator[tuple[int, int]]:
        """Registers between its places, as (start, before end)."""
        end = self.places[0].end
        for place in self.places[1:]:
            if place.address > end:
                yield end, place.address
            end = max(end, place.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """What one request may cover. Ranges are (first, last); `split_at` registers begin a new request, `forbidden` ones
    are never read, `holes` are not read along between places. `gap_max` and `split_at` separate bundles, but never
    split one."""

    registers_max: int
    gap_max: int
    split_at: tuple[int, ...] = ()
    forbidden: tuple[tuple[int, int], ...] = ()
    holes: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, section: ModbusSection) -> "RequestLimits":
        return cls(
            registers_max=section.registers_max,
            gap_max=section.gap_max,
            split_at=section.split_at,
            forbidden=section.forbidden,
        )

    def readable(self, bundle: Bundle) -> bool:
        """Whether one request may cover the whole bundle."""
        fits = bundle.words <= self.registers_max and bundle.end <= ADDRESSES
        holed = any(_meet(self.holes, *gap) for gap in bundle.gaps())
        return fits and not holed and not _meet(self.forbidden, bundle.address, bundle.end)

    def joins(self, start: int, end: int, bundle: Bundle) -> bool:
        """Whether a request for registers `start` to before `end` may grow to cover `bundle`."""
        reach = max(end, bundle.end)
        return (
            bundle.address - end <= self.gap_max
            and reach - start <= self.registers_max
            and not any(start < split < reach for split in self.split_at)
            and not _meet(self.forbidden, start, reach)
            and not _meet(self.holes, end, bundle.address)
        )


def _meet(ranges: tuple[tuple[int, int], ...], start: int, end: int) -> bool:
    """Whether registers `start` to before `end` include one of `ranges`."""
    return any(first < end and start <= last for first, last in ranges) if start < end else False


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One request and the bundles it fills."""

    unit: int
    function: int
    address: int
    count: int
    bundles: tuple[Bundle, ...]

    @property
    def places(self) -> tuple[RegisterPlace, ...]:
        return tuple(place for bundle in self.bundles for place in bundle.places)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a device has refused: registers it does not have (`holes`) and where a request must end (`splits`), each as
    (unit, function, ...)."""

    holes: frozenset[tuple[int, int, int, int]] = frozenset()
    splits: frozenset[tuple[int, int, int]] = frozenset()

    def applied_to(self, limits: RequestLimits, unit: int, function: int) -> RequestLimits:
        """`limits` as they are for one unit and function."""
        key = (unit, function)
        holes = tuple((first, last) for u, f, first, last in self.holes if (u, f) == key)
        splits = tuple(split for u, f, split in self.splits if (u, f) == key)
        if not holes and not splits:
            return limits
        return RequestLimits(
            registers_max=limits.registers_max,
            gap_max=limits.gap_max,
            split_at=limits.split_at + splits,
            forbidden=limits.forbidden,
            holes=holes,
        )


NOTHING_LEARNED = Learned()


def bundled(places: Iterable[RegisterPlace]) -> list[Bundle]:
    """Every place in the bundle of its scale factor, or alone. Leaves out a place whose factor is missing: its value
    would be unknown."""
    known = {place.point: place for place in places}
    scaled: dict[str, list[RegisterPlace]] = {place.factor: [] for place in known.values() if place.factor}
    bundles = []
    for place in known.values():
        if place.factor:
            factor = known.get(place.factor)
            if factor is not None and (place.unit, place.function) == (factor.unit, factor.function):
                scaled[place.factor].append(place)
        elif place.point not in scaled:
            bundles.append(Bundle((place,)))
    for name, values in scaled.items():
        if name in known:
            together = sorted((known[name], *values), key=lambda place: (place.address, place.words))
            bundles.append(Bundle(tuple(together)))
    return bundles


def plan(
    places: Iterable[RegisterPlace], limits: RequestLimits, learned: Learned = NOTHING_LEARNED
) -> tuple[Block, ...]:
    """Blocks that cover every readable bundle exactly once, none of them torn; unreadable ones are left out.

    Never more blocks than bundles: registers between two of them are read along where the limits allow it. A bundle
    that itself spans a split stays whole and alone.
    """
    blocks: list[Block] = []
    grouped: dict[tuple[int, int], list[Bundle]] = {}
    for bundle in bundled(places):
        grouped.setdefault((bundle.unit, bundle.function), []).append(bundle)
    for (unit, function), members in sorted(grouped.items(), key=lambda item: item[0]):
        own = learned.applied_to(limits, unit, function)
        members.sort(key=lambda bundle: (bundle.address, bundle.words))
        blocks += _blocks([bundle for bundle in members if own.readable(bundle)], own)
    return tuple(blocks)


def _blocks(bundles: list[Bundle], limits: RequestLimits) -> Iterable[Block]:
    """`bundles` are of one unit and function, sorted by address."""
    run: list[Bundle] = []
    end = 0
    for bundle in bundles:
        if run and limits.joins(run[0].address, end, bundle):
            run.append(bundle)
            end = max(end, bundle.end)
            continue
        if run:
            yield _block(run, end)
        run, end = [bundle], bundle.end
    if run:
        yield _block(run, end)


def _block(run: list[Bundle], end: int) -> Block:
    first = run[0]
    return Block(
        unit=first.unit,
        function=first.function,
        address=first.address,
        count=end - first.address,
        bundles=tuple(run),
    )


def split(block: Block) -> Collection[int]:
    """Where to split a block that the device refused although it answered each of its bundles: at the gaps, else in the
    middle, else where one bundle begins inside another."""
    starts: list[int] = []
    inner: list[int] = []
    over: list[int] = []
    end = block.bundles[0].end
    for bundle in block.bundles[1:]:
        if bundle.address > end:
            starts.append(bundle.address)
        elif bundle.address == end:
            inner.append(bundle.address)
        elif bundle.address > block.address:
            over.append(bundle.address)
        end = max(end, bundle.end)
    if starts:
        return starts
    return inner[len(inner) // 2 : len(inner) // 2 + 1] or over[:1]
