"""What an event asks for by the hour."""

from fractions import Fraction

from gateway.domain.events.request import EventRequest, Want
from gateway.domain.programs.metered import HOUR_MS, EventIntervals


def awarded_w(request: EventRequest, began_ms: int, intervals: EventIntervals, batteries: int) -> list[Fraction] | None:
    """Mean power that an occurrence, begun at `began_ms` (UTC), asks for in its part of each hour, W; None: it asks for
    something else."""
    legs = [(began_ms + leg.after_ms, began_ms + leg.until_ms, leg.target) for leg in request.legs]
    wanted = legs or [(intervals.from_ms, intervals.until_ms, request.target)]
    watt_ms = [Fraction(0)] * len(intervals.hours_ms)
    for from_ms, until_ms, target in wanted:
        if target.want not in (Want.POWER, Want.DEVICE_POWER) or target.power_w is None:
            return None
        power_w = Fraction(str(target.power_w)) * (batteries if target.want is Want.DEVICE_POWER else 1)
        for place, hour_ms in enumerate(intervals.hours_ms):
            begin = max(from_ms, hour_ms, intervals.from_ms)
            end = min(until_ms, hour_ms + HOUR_MS, intervals.until_ms)
            watt_ms[place] += power_w * max(end - begin, 0)
    return [power / part for power, part in zip(watt_ms, intervals.hour_parts_ms.tolist(), strict=True)]
