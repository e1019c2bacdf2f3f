"""Identifies one device and reads every point of its profile; writes nothing."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from gateway.domain.errors import NotThisProduct
from gateway.domain.fleet.device import DeviceConnection
from gateway.domain.types import DeviceId
from gateway.ports.links import FoundModel, PointLink, PointLinks, PointTarget
from gateway.profiles.compile import Codec
from gateway.profiles.compiled.points import Read, Value, Values
from gateway.profiles.compiled.variant import PointProduct, ProductVariant
from gateway.profiles.language.quantities import READINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedPoint:
    """One point: what came over the wire (None = not read), and what it means."""

    name: str
    raw: Read | None
    value: Value
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a device is and reports. `problems`: why it is not what the profile describes; `unmet`: why it could not be
    controlled now; `notice`: what is wrong although it answers; `models`: the SunSpec models it has, by the profile's
    words; `readings` in canonical words, None = unknown, members of an enumeration by name, "unclear" = about
    safety and not understood."""

    profile: str
    variant: str
    problems: list[str]
    unmet: list[str]
    points: list[ProbedPoint]
    readings: dict[str, float | str | None]
    notice: str | None = None
    models: Mapping[str, FoundModel] = field(default_factory=dict)


async def probe(
    codec: Codec,
    product: PointProduct,
    links: PointLinks,
    connection: DeviceConnection,
    *,
    device: DeviceId,
    secret: str,
) -> Probe:
    """Connect, identify, read every point once. Raises what links raise: LinkDown, PeerRefused, NotThisProduct."""
    values = Values()
    raws: dict[str, Read] = {}

    @asynccontextmanager
    async def opened(variant: ProductVariant) -> AsyncIterator[PointLink]:
        link = links.link(
            PointTarget(
                device=device, connection=connection, secret=secret, document=variant.document, points=variant.points
            )
        )
        try:
            await link.open()
            yield link
        finally:
            await link.close()

    async def read(link: PointLink, variant: ProductVariant, names: tuple[str, ...]) -> None:
        found = await link.read(names)
        raws.update(found)
        variant.decode(found, values)

    # One connection serves both: some products refuse a new connection for a while after the last one closed.
    async with opened(product.base) as base:
        await read(base, product.base, product.base.identifying)
        problems = product.base.not_this_product(values)
        variant = product.base if problems else product.variant(values)
        notice, models = base.notice, base.models
        try:
            async with opened(variant) as link:
                await read(link, variant, variant.reads)
                notice, models = link.notice, link.models
        except NotThisProduct as error:
            problems.append(str(error))
    points = [
        ProbedPoint(name=name, raw=raws.get(name), value=values.get(name), unit=point.unit)
        for name, point in variant.points.items()
        if point.readable
    ]
    return Probe(
        profile=codec.name,
        variant=variant.variant,
        problems=problems,
        unmet=variant.unmet(values),
        notice=notice,
        models=dict(models),
        points=points,
        readings=named_readings(variant, values),
    )


def named_readings(variant: ProductVariant, values: Values) -> dict[str, float | str | None]:
    """The canonical readings of the values, in the words of `Probe.readings`."""
    out: dict[str, float | str | None] = {}
    found = variant.canonical(values)
    for name, number in found.quantities.items():
        members = READINGS[name].members
        if READINGS[name].unclear & found.unclear:
            out[name] = "unclear"
        elif members is not None:
            out[name] = next((text for text, at in members.items() if at == number), "unknown")
        else:
            out[name] = None if number != number else number  # noqa: PLR0124 - NaN means unknown
    return out
