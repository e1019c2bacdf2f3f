"""Checks that each scale factor can be read in the same request as the values it scales."""

from collections.abc import Iterator
from itertools import pairwise

from gateway.profiles.language.points import Point, PointType
from gateway.profiles.language.transport import ModbusSection

Span = tuple[int, int]
"""First register and the one after the last, counted from the id word inside a model."""


def factor_faults(points: dict[str, Point], section: ModbusSection | None) -> Iterator[str]:
    """Every fault of scale factors, each with its path."""
    bundles: dict[str, list[Point]] = {}
    for name, point in points.items():
        if point.scale_factor is None:
            continue
        factor = points.get(point.scale_factor)
        fault = "is not a point" if factor is None else _fault(point, factor)
        if fault:
            yield f"points.{name}.scale_factor: {point.scale_factor!r} {fault}"
        elif point.readable:
            bundles.setdefault(point.scale_factor, []).append(point)
    if section is None:
        return
    for name, values in bundles.items():
        spans = [_span(point, section) for point in (points[name], *values)]
        known = sorted(span for span in spans if span is not None)
        if len(known) == len(spans):
            modelled = points[name].model is not None
            yield from (f"points.{name}: {fault}" for fault in _bundle_faults(known, section, modelled))


def _fault(point: Point, factor: Point) -> str:
    if factor.type is not PointType.I16 or not factor.readable or factor.scale_factor is not None:
        return "must be an i16 that can be read, without a scale factor of its own"
    if (point.unit_id, point.function, point.model) != (factor.unit_id, factor.function, factor.model):
        return "must be of the same unit, function and model: one request cannot read both"
    if not point.readable or point.poll == "never":
        return "" if factor.poll not in ("once", "never") else "must be polled: what it scales is written by it"
    return "" if factor.poll == point.poll else f"must be polled {point.poll} like what it scales, not {factor.poll}"


def _span(point: Point, section: ModbusSection) -> Span | None:
    """The registers of a point, the last it may have where its block is counted or named by the device; None where
    another check reports the fault."""
    start = point.address if point.model is None else point.offset
    if start is None:
        return None
    if point.block is not None:
        blocks = section.sunspec.blocks.get(point.model or 0) if section.sunspec is not None else None
        if blocks is None:
            return None
        last = max(blocks.counts)
        number = last if isinstance(point.block, str) else point.block if point.block > 0 else last + 1 + point.block
        start += blocks.start + (number - 1) * blocks.length
    return start, start + point.register_count


def _bundle_faults(spans: list[Span], section: ModbusSection, modelled: bool) -> Iterator[str]:
    """Faults of the `spans` of a factor and all it scales, in order. Inside a model a request may cross any gap."""
    first, end = spans[0][0], max(end for _, end in spans)
    if end - first > section.registers_max:
        yield f"with what it scales it spans {end - first} registers, registers_max is {section.registers_max}"
    if modelled:
        return
    gap = max(start - before for (_, before), (start, _) in pairwise(spans))
    if gap > section.gap_max:
        yield f"{gap} registers lie between it and what it scales, gap_max is {section.gap_max}"
    if any(first < split < end for split in section.split_at):
        yield "modbus.split_at parts it from what it scales"
    if any(low < end and first <= high for low, high in section.forbidden):
        yield "modbus.forbidden lies between it and what it scales"
