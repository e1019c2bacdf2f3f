"""What is wrong with a request in itself, whoever sends it and whenever."""

import math
from itertools import pairwise

from gateway.domain.events.request import EventKind, EventRequest, TargetGroup, Want


def names_someone(group: TargetGroup) -> bool:
    """Whether a group can have devices at all."""
    return group.all or bool(group.ids) or bool(group.tags)


def each_named(request: EventRequest) -> bool:
    """Whether a target that differs by device has a finite power, the same way, for each id of a group of ids alone."""
    group = request.group
    for target in request.targets:
        if not target.each_w:
            continue
        if group.all or group.tags or len(group.ids) != len(target.each_w):
            return False
        # of 100,000 powers faster than an array of them is made
        each_w = target.each_w
        if not (math.isfinite(sum(each_w)) and (min(each_w) > 0 or max(each_w) < 0)):
            return False
    return True


def needs_end(request: EventRequest) -> bool:
    """Whether an occurrence has no end and asks for what needs one: a SoC by then, or a test of what lasts to it."""
    test = request.kind is EventKind.CAPACITY_TEST
    return request.endless and (test or request.targets[-1].want is Want.CHARGE_TO)


def in_order(request: EventRequest) -> bool:
    """Legs one after the other, each of some length, the first not before the start."""
    legs = request.legs
    if any(leg.until_ms <= leg.after_ms for leg in legs):
        return False
    return not legs or (legs[0].after_ms >= 0 and all(a.until_ms <= b.after_ms for a, b in pairwise(legs)))


def overlap(request: EventRequest) -> bool:
    """Whether an occurrence begins before the one before it is over, or the first not with the start."""
    if request.every_ms is not None:
        return request.every_ms < request.length_ms or bool(request.starts_ms)
    if request.daily is not None:
        return request.endless or bool(request.starts_ms)
    starts_ms = request.starts_ms
    if not starts_ms:
        return False
    ends_ms = request.ends_ms or tuple(ms + request.length_ms for ms in starts_ms)
    return starts_ms[0] != request.start_ms or any(b < a for a, b in zip(ends_ms, starts_ms[1:], strict=False))
