"""Judges a plant at rest by what was promised: from the devices' own books, the receiver's, and what the gateway says
of both."""

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from gateway.domain.registry.connection import Connection
from gateway.services.telemetry.completeness import STORED_AFTER_MS
from tests.scenes.meters import STEP_MS, Energy, Meter, topic_of
from tests.scenes.settlement import LENGTH_S, PLUG, SINK, Plant

STEP_WH = 1.0
ROUNDED_WH = 1e-3
LENGTH_MS = LENGTH_S * 1000


async def judge(plant: Plant) -> list[str]:
    """What of the promises is broken, in words."""
    out = [problem for meter in plant.meters for problem in _energy(plant, meter)]
    out += _raw(plant)
    out += await _receiver(plant)
    for name in (*plant.names(), PLUG):
        out += _history(name, await plant.process.store.connections(name))
    return out


async def judge_ledger(plant: Plant) -> list[str]:
    """At any time: what the ledger calls accepted, the receiver has taken."""
    newest = [one.record for one in await plant.newest()]
    taken: dict[str, int] = {}
    for record in newest:
        taken[record.device] = taken.get(record.device, 0) + (
            (record.device, record.start_ms, record.revision) in plant.receiver.taken
        )
    return [
        f"{device}: the ledger says that {day.accepted} are accepted, of which {taken.get(device, 0)} were taken"
        for device, day in (await plant.completeness()).items()
        if day.accepted > taken.get(device, 0)
    ]


def received(plant: Plant, meter: Meter) -> Energy | tuple[float, float]:
    """The sum of what the receiver has of a device."""
    rows = [row for (device, _), row in plant.receiver.rows.items() if device == meter.name]
    return sum(row.charge_wh or 0.0 for row in rows), sum(row.discharge_wh or 0.0 for row in rows)


def _energy(plant: Plant, meter: Meter) -> Iterator[str]:
    unacknowledged = sum(not message.acknowledged for message in meter.sent)
    if unacknowledged:
        yield f"{meter.name}: {unacknowledged} messages are not acknowledged"
    least, most = meter.moved()
    step_wh = STEP_WH if meter.counts else ROUNDED_WH
    for way, (low_wh, high_wh), has_wh in zip(
        ("charged", "discharged"), zip(least, most, strict=True), received(plant, meter), strict=True
    ):
        if not low_wh - step_wh <= has_wh <= high_wh + step_wh:
            span = f"{low_wh}" if low_wh == high_wh else f"{low_wh} to {high_wh}"
            yield f"{meter.name}: {way} {span} Wh, and the receiver has {has_wh:.3f} Wh"
    one = len({message.topic for message in meter.sent}) == 1
    if not meter.astray and len(meter.certain()) == len(meter.sent) and (one or meter.strict):
        yield from _times(plant, meter)


def _times(plant: Plant, meter: Meter) -> Iterator[str]:
    """Energy stands in the intervals of the device's own times: between its first message and its last."""
    said = [message.t_ms for message in meter.sent]
    if not said:
        return
    first_ms = -(-said[0] // LENGTH_MS) * LENGTH_MS
    for start_ms in range(first_ms, said[-1] - LENGTH_MS + 1, LENGTH_MS):
        ends = range(start_ms + STEP_MS, start_ms + LENGTH_MS + 1, STEP_MS)
        true = [sum(meter.truth[end][way] for end in ends) for way in (0, 1)]
        row = plant.receiver.rows.get((meter.name, start_ms))
        has = (None, None) if row is None else (row.charge_wh, row.discharge_wh)
        if any(wh is None or abs(wh - ours) > STEP_WH for wh, ours in zip(has, true, strict=True)):
            yield f"{meter.name}: the interval at {start_ms} has {has} Wh, and {true} Wh flowed in it"


def _raw(plant: Plant) -> Iterator[str]:
    """What could not be read is kept, with its reason; what can be read by now is not kept any more."""
    raw = plant.process.raw
    for meter in plant.meters:
        stored = {topic: kept.stored for topic, kept in raw.topics.items() if f"/{meter.name}/" in topic}
        mine = stored.get(topic_of(meter.product, meter.name))
        if mine is not None and mine.messages > mine.unreadable:
            yield f"{meter.name}: {mine.messages - mine.unreadable} messages wait although they can be read"
        unread = Counter(message.topic for message in meter.odd if message.acknowledged and message.garbled)
        for topic, count in unread.items():
            has = stored[topic].messages if topic in stored else 0
            if has < count or not raw.reason(topic):
                yield f"{topic}: {count} messages that nobody can read, {has} are kept"


async def _receiver(plant: Plant) -> list[str]:
    """The receiver has the newest revision of everything, and the ledger says so."""
    rows, taken = plant.receiver.rows, plant.receiver.taken
    newest = {(one.record.device, one.record.start_ms): one.record for one in await plant.newest()}
    out = [f"the receiver has {key}, and the log has not" for key in sorted(rows.keys() - newest.keys())]
    for key, record in newest.items():
        row = rows.get((str(key[0]), key[1]))
        if row is None or row.revision != record.revision:
            what = "nothing" if row is None else f"revision {row.revision}"
            out.append(f"the receiver has {what} of {key}, whose newest revision is {record.revision}")
    counts = await plant.process.upstream.log.ask(lambda positions: positions.parked_counts(SINK))
    if counts:
        out.append(f"rows are parked: {dict(counts)}")
    over_ms = plant.clock.now().utc_ms - STORED_AFTER_MS
    for device, day in (await plant.completeness()).items():
        mine = [r for (name, start_ms), r in newest.items() if name == device and start_ms + LENGTH_MS <= over_ms]
        has = sum((r.device, r.start_ms, r.revision) in taken for r in mine)
        if (day.accepted, day.waiting, day.not_wanted, day.superseded, day.inferred, dict(day.refused)) != (
            has, 0, 0, 0, 0, {},
        ):  # fmt: skip
            out.append(f"{device}: of {len(mine)} intervals {has} were taken, and the ledger says {day}")
    return out


def _history(name: str, known: list[Connection]) -> Iterator[str]:
    """One open connection at most, and none begins before the one before it has ended."""
    if sum(one.valid.until_ms is None for one in known) > 1:
        yield f"{name}: more than one connection is open: {known}"
    for before, after in pairwise(known):
        if before.valid.until_ms is None or before.valid.until_ms > (after.valid.from_ms or 0):
            yield f"{name}: a connection begins before the one before it has ended: {known}"
