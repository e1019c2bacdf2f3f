"""Links polled devices over Modbus TCP: reads points from registers in as few requests as the product allows.

Devices behind one host and port share one connection (`connection`). A link that lost its connection raises LinkDown
until the session opens it anew: another device may answer at the address after a reconnect, and the session checks
that. The channel repeats the last read before the product would close an idle connection.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from urllib.parse import urlsplit

from gateway.clock import Clock
from gateway.domain.errors import InvalidInput, LinkDown, NotThisProduct, PeerBusy, PeerRefused, invariant
from gateway.links.modbus.blocks import NOTHING_LEARNED, Block, Bundle, RegisterPlace, RequestLimits, plan, split
from gateway.links.modbus.connection import Channel, TimeoutSweeper
from gateway.links.modbus.pdu import WRITE_MANY, WRITE_ONE, ExceptionReply, Words, read_request, write_request
from gateway.links.modbus.sunspec import UnitModels, address_of, found_models, models_of, other_product, walk
from gateway.links.modbus.turns import ModbusStats, Pacing
from gateway.observability.metrics import Sample
from gateway.observability.parts import Part
from gateway.ports.links import NO_MODELS, FoundModel, PointTarget
from gateway.profiles.compiled.points import Marker, Raw
from gateway.profiles.compiled.sequences import Request
from gateway.profiles.language.points import Point
from gateway.profiles.language.transport import ModbusSection, SunSpec

__all__ = ["ModbusLink", "ModbusLinks", "ModbusStats"]

READ_HOLDING = 3
NOT_THERE = (1, 2, 3)
SERVICE_ABSENT = (10, 11)
PLANS_MAX = 32
WALK_AGAIN_MS = 60_000
SCHEME = "modbus"


class RequestRefused(PeerRefused):
    """The device answered with exception `code`."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class ServiceAbsent(LinkDown):
    """A Modbus gateway in between reports that the unit behind it does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _BlockRequest:
    """The request for a block, and which of its words belong to which point."""

    block: Block
    pdu: bytes
    slices: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, block: Block) -> "_BlockRequest":
        start = block.address
        return cls(
            block=block,
            pdu=read_request(block.function, start, block.count),
            slices=tuple((place.point, place.address - start, place.end - start) for place in block.places),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    requests: tuple[_BlockRequest, ...]
    missing: tuple[str, ...]
    points: int


class ModbusLinks(Part):
    """The `PointLinks` of every device reached over Modbus TCP."""

    component = "devices"

    def __init__(self, clock: Clock) -> None:
        self.stats = ModbusStats()
        self.clock = clock
        self._sweeper = TimeoutSweeper(clock)
        self._channels: dict[tuple[str, int], Channel] = {}

    def link(self, target: PointTarget) -> "ModbusLink":
        """A link to one device. Raises InvalidInput for a registered address or unit that cannot be used."""
        return ModbusLink(target, self)

    def channel(self, host: str, port: int, pacing: Pacing) -> Channel:
        """The one connection to `host` and `port`, for one more user."""
        channel = self._channels.get((host, port))
        if channel is None:
            channel = Channel(host, port, pacing, sweeper=self._sweeper, stats=self.stats)
            self._channels[host, port] = channel
        channel.join(pacing)
        return channel

    async def leave(self, channel: Channel) -> None:
        """Remove one user; the last one closes the connection."""
        await channel.leave()
        if channel.users <= 0 and self._channels.get((channel.host, channel.port)) is channel:
            del self._channels[channel.host, channel.port]

    def samples(self) -> Iterable[Sample]:
        return self.stats.samples()

    async def close(self) -> None:
        """Close every connection; links that are still open find theirs lost."""
        channels = list(self._channels.values())
        for channel in channels:
            await channel.close()


class ModbusLink:
    """One device. Times and limits are its profile's `modbus` section."""

    heard_mono_ms: int | None = None

    def __init__(self, target: PointTarget, links: ModbusLinks) -> None:
        section = target.document.modbus
        invariant(section is not None, "a Modbus link belongs to a profile with registers")
        self._section: ModbusSection = section or ModbusSection(units={"main": 1})
        self._host, self._port = _address(target, self._section.port)
        self._units = _units(target, self._section)
        self._points = target.points
        self._wanted = target.connection.parameters
        self._links = links
        self._stats = links.stats
        self._limits = RequestLimits.of(self._section)
        self._timeout_ms = round(1000 * self._section.timeout_s)
        self._channel: Channel | None = None
        self._generation = 0
        self._models: dict[int, UnitModels] = {}
        self._found: Mapping[str, FoundModel] | None = None
        self._walked_ms = 0
        self._places: dict[str, RegisterPlace] = {}
        self._absent: set[str] = set()
        self._learned = NOTHING_LEARNED
        self._plans: dict[tuple[str, ...], _Plan] = {}

    @property
    def notice(self) -> str | None:
        """Names of models that mean none of those there are, and why."""
        whys = {name: why for unit in self._models.values() for name, why in unit.unclear.items()}
        return "; ".join(f"SunSpec model {name}: {why}" for name, why in whys.items()) or None

    @property
    def models(self) -> Mapping[str, FoundModel]:
        """The models found; where several units have one of the same name, that of the unit whose points use it."""
        section = self._section.sunspec
        if section is None:
            return NO_MODELS
        if self._found is not None:
            return self._found
        out: dict[str, FoundModel] = {}
        for unit, found in self._models.items():
            used = {point.model for point in self._points.values() if self._units[point.unit_id] == unit}
            out |= found_models(found, used, section)
        self._found = out
        return out

    async def open(self) -> None:
        """Connect and find the points' registers; forget what an earlier connection taught."""
        if self._channel is None:
            self._channel = self._links.channel(self._host, self._port, Pacing.of(self._section))
        await self._channel.connect(self._section.timeout_s)
        self._generation = self._channel.generation
        self._absent.clear()
        self._plans.clear()
        self._learned = NOTHING_LEARNED
        self._models.clear()
        if self._section.sunspec is not None:
            await self._walk(self._modelled(), self._section.sunspec)
        self._place_points()

    async def read(self, points: Sequence[str]) -> dict[str, Raw]:
        """Raw words of `points` and of the factors that scale them; MISSING where the device has none. A value and its
        factor come from one request."""
        key = tuple(points)
        known = self._plans.get(key) or self._planned(key)
        if known.missing and await self._walked_again(known.missing):
            known = self._planned(key)
        raws: dict[str, Raw] = dict.fromkeys(known.missing, Marker.MISSING)
        for request in known.requests:
            try:
                words = await self._ask(request.block.unit, request.pdu)
            except RequestRefused as refused:
                if refused.code not in NOT_THERE:
                    raise
                await self._read_singly(request.block, raws)
                continue
            for name, start, end in request.slices:
                raws[name] = words[start:end]
        self._stats.points += known.points
        return raws

    async def write(self, request: Request) -> None:
        """Write one request; the broadcast unit does not answer."""
        places: list[tuple[RegisterPlace, Words]] = []
        for write in request.writes:
            place = self._written_to(write.point)
            if place is None:
                raise PeerRefused(f"{write.point}: the device does not have it")
            invariant(isinstance(write.raw, tuple), "registers are written as words")
            words = write.raw if isinstance(write.raw, tuple) else ()
            invariant(len(words) == place.words, "a point is written whole")
            places.append((place, words))
        invariant(bool(places), "a request writes something")
        places.sort(key=lambda item: item[0].address)
        for (before, _), (after, _) in pairwise(places):
            invariant(
                before.end == after.address and before.unit == after.unit, "registers of one request follow each other"
            )
        words = tuple(word for _, words in places for word in words)
        first = places[0][0]
        pdu = write_request(self._function(request, len(words)), first.address, words)
        await self._ask(first.unit, pdu, beside=read_request(READ_HOLDING, first.address, first.words))

    async def close(self) -> None:
        """Leave the shared connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await self._links.leave(channel)

    # -- planning --------------------------------------------------------------------------------------------

    def _planned(self, points: tuple[str, ...]) -> _Plan:
        if self._channel is None:
            raise LinkDown("not connected")
        factors = [self._points[name].scale_factor for name in points]
        names = dict.fromkeys([*points, *(name for name in factors if name is not None)])
        wanted = [self._places[name] for name in names if name in self._places and name not in self._absent]
        blocks = plan(wanted, self._limits, self._learned)
        requests = tuple(_BlockRequest.of(block) for block in blocks)
        covered = {name for request in requests for name, _, _ in request.slices}
        missing = tuple(name for name in names if name not in covered)
        if len(self._plans) >= PLANS_MAX:
            self._plans.clear()
        self._plans[points] = found = _Plan(requests=requests, missing=missing, points=len(covered))
        return found

    async def _read_singly(self, block: Block, raws: dict[str, Raw]) -> None:
        """Read a refused block bundle by bundle, and remember why it was refused."""
        holes: set[tuple[int, int, int, int]] = set()
        for bundle in block.bundles:
            words = await self._tried(bundle)
            if words is None:
                raws |= {place.point: Marker.MISSING for place in bundle.places}
                holes |= await self._lacking(bundle)
                continue
            for place in bundle.places:
                raws[place.point] = words[place.address - bundle.address : place.end - bundle.address]
        splits = () if holes else split(block)
        self._learned = replace(
            self._learned,
            holes=self._learned.holes | holes,
            splits=self._learned.splits | {(block.unit, block.function, at) for at in splits},
        )
        self._plans.clear()

    async def _lacking(self, bundle: Bundle) -> set[tuple[int, int, int, int]]:
        """Why a bundle was refused: the places that the device does not have, as holes. If it has all of them but not
        in one request, the scaled values are unknown."""
        lone = len(bundle.places) == 1
        lacking = [place for place in bundle.places if lone or await self._tried(Bundle((place,))) is None]
        gone = lacking or [place for place in bundle.places if place.factor]
        self._absent |= {place.point for place in gone}
        self._stats.missing += len(gone)
        return {(place.unit, place.function, place.address, place.end - 1) for place in lacking}

    async def _tried(self, bundle: Bundle) -> Words | None:
        """The words of a bundle; None where the device has none there."""
        try:
            return await self._ask(bundle.unit, read_request(bundle.function, bundle.address, bundle.words))
        except RequestRefused as refused:
            if refused.code not in NOT_THERE:
                raise
            return None

    # -- addresses -------------------------------------------------------------------------------------------

    def _place_points(self) -> None:
        """Place every point by the model chains found."""
        self._plans.clear()
        self._found = None
        placed = {name: self._place(name, point) for name, point in self._points.items()}
        self._places = {name: place for name, place in placed.items() if place is not None}

    def _place(self, name: str, point: Point) -> RegisterPlace | None:
        unit = self._units[point.unit_id]
        address = point.address
        if point.model is not None and self._section.sunspec is not None:
            found = self._models.get(unit)
            address = address_of(point, found.models, self._section.sunspec) if found is not None else None
        if address is None:
            return None
        return RegisterPlace(
            point=name,
            unit=unit,
            function=point.function,
            address=address,
            words=point.register_count,
            factor=point.scale_factor or "",
        )

    def _written_to(self, name: str) -> RegisterPlace | None:
        place, write = self._places.get(name), self._points[name].write
        return place if place is None or write is None else replace(place, address=write.address or 0)

    def _modelled(self) -> set[int]:
        """Units that have points in models."""
        return {self._units[point.unit_id] for point in self._points.values() if point.model is not None}

    async def _walk(self, units: set[int], section: SunSpec) -> None:
        """Find the models of `units`. The main unit must have a chain; another one may be an accessory that is not
        fitted, or sleeps."""
        main = self._units["main"]
        self._walked_ms = self._links.clock.mono_ms()
        for unit in sorted(units) or [main]:
            try:
                chain = await walk(partial(self._holding, unit), section)
            except ServiceAbsent:
                if unit == main:
                    raise
                chain = None
            if chain is None and unit == main:
                raise NotThisProduct(f"unit {unit}: no SunSpec marker at {', '.join(map(str, section.bases))}")
            self._models[unit] = models_of(chain or (), section, dict(self._wanted))
        wrong = other_product([found.chain for found in self._models.values()], section)
        if wrong:
            raise NotThisProduct("; ".join(wrong))

    async def _walked_again(self, missing: Sequence[str]) -> bool:
        """Walk chains again now and then, for missing points: those of accessories, and where none of several models
        could be chosen. Returns whether it did."""
        section, main = self._section.sunspec, self._units["main"]
        if section is None or self._links.clock.mono_ms() - self._walked_ms < WALK_AGAIN_MS:
            return False
        asked = [self._points[name] for name in missing if name not in self._places]
        modelled = [(self._units[point.unit_id], point.model) for point in asked if point.model is not None]
        units = {unit for unit, model in modelled if unit != main or model in self._models[unit].unclear}
        if units:
            await self._walk(units, section)
            self._place_points()
        return bool(units)

    async def _holding(self, unit: int, address: int, count: int) -> Words:
        return await self._ask(unit, read_request(3, address, count))

    # -- asking ----------------------------------------------------------------------------------------------

    async def _ask(self, unit: int, pdu: bytes, *, beside: bytes = b"") -> Words:
        """Send one request, again while the device is busy. `beside`: the read that tells whether a device that answers
        a write with one of `refusal_codes` is busy. Raises RequestRefused, ServiceAbsent, PeerBusy and what the channel
        raises."""
        section = self._section
        code, busy = 0, False
        for left in range(section.busy_retries, -1, -1):
            found = await self._exchange(unit, pdu)
            if not isinstance(found, ExceptionReply):
                return found
            self._stats.exception(found.code)
            code, busy = found.code, found.code in section.busy_codes
            if busy and beside and code in section.refusal_codes:
                busy = await self._is_busy(unit, beside)
            if not busy:
                break
            self._stats.busy += 1
            if left:
                await asyncio.sleep(section.busy_wait_s)
        what = f"unit {unit}: exception {code} to function {pdu[0]} at {int.from_bytes(pdu[1:3], 'big')}"
        if busy:
            raise PeerBusy(what, after_s=section.busy_wait_s)
        if code in SERVICE_ABSENT:
            raise ServiceAbsent(what)
        raise RequestRefused(what, code=code)

    def _exchange(self, unit: int, pdu: bytes) -> "asyncio.Future[Words | ExceptionReply]":
        channel = self._channel
        if channel is None:
            raise LinkDown("not connected")
        return channel.exchange(unit, pdu, timeout_ms=self._timeout_ms, generation=self._generation)

    async def _is_busy(self, unit: int, read: bytes) -> bool:
        """Whether the device does not answer a read now either."""
        found = await self._exchange(unit, read)
        if not isinstance(found, ExceptionReply):
            return False
        self._stats.exception(found.code)
        return found.code in self._section.busy_codes

    def _function(self, request: Request, count: int) -> int:
        if len(request.writes) > 1:
            return WRITE_MANY
        return self._points[request.writes[0].point].write_function or (WRITE_ONE if count == 1 else WRITE_MANY)


def _address(target: PointTarget, port: int) -> tuple[str, int]:
    url = target.connection.url
    try:
        split_url = urlsplit(url)
        host, port = split_url.hostname, split_url.port or port
    except ValueError as error:
        raise InvalidInput([f"{target.device}: connection.url: {url!r}: {error}"]) from error
    if split_url.scheme != SCHEME or not host or split_url.path.strip("/") or split_url.query or split_url.username:
        raise InvalidInput([f"{target.device}: connection.url: {url!r} is not {SCHEME}://host[:port]"])
    return host, port


def _units(target: PointTarget, section: ModbusSection) -> dict[str, int]:
    """Unit ids by name: the profile's, overridden by the registered device's."""
    own = dict(target.connection.units)
    problems = [
        f"{target.device}: connection.units: the profile has no {name!r}" for name in own.keys() - section.units
    ]
    problems += [
        f"{target.device}: connection.units.{n}: {u} is not 0 to 255" for n, u in own.items() if not 0 <= u <= 255
    ]
    if problems:
        raise InvalidInput(problems)
    return section.units | own
