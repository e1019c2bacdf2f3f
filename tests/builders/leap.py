"""Meters of the aggregator for tests: the homes 1 to 5 have one each."""

import uuid

from gateway.domain.types import DeviceId
from gateway.sinks.leap.rows import LeapMeter
from tests.builders.interval_logs import T0

NOW_MS = T0 + 4 * 86_400_000


def meter_id(number: int) -> str:
    return str(uuid.UUID(int=(number << 96) + 0xC0FFEE))


METERS = {DeviceId(f"home-{number}"): LeapMeter(id=meter_id(number)) for number in range(1, 6)}
