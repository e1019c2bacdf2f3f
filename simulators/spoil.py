"""What running faults make of the messages of a device."""

import orjson

from simulators.faults import FaultBook, FaultKind
from simulators.messages import Body

# faults that the honest live message itself shows, and what it shows
_SHOWN = {
    FaultKind.ISLAND: "island reported",
    FaultKind.FAULT_BITS: "fault bits reported",
    FaultKind.OWNER_RESERVE: "new reserve reported",
    FaultKind.OWNER_MODE: "own mode reported",
}


def garbled(body: Body, nth: int) -> bytes:
    """A live message of a broken device; the kind of damage goes round with `nth`."""
    match nth % 6:
        case 0:
            return orjson.dumps(body | {"soc_pct": None, "battery_w": None})
        case 1:
            return orjson.dumps(body | {"battery_w": "NaN", "soc_pct": "NaN"})
        case 2:
            return orjson.dumps(body | {"soc_pct": 1e12, "battery_w": -1e12})
        case 3:
            return orjson.dumps(body | {"battery_w": "?"}).replace(b'"?"', b"NaN")
        case 4:
            return orjson.dumps(body)[:-20]
        case _:
            return orjson.dumps(body | {"temp_c": "hot", "discharge_w_max": -5, "mode": 7, "t": -1})


def spoil_live(faults: FaultBook, index: int, body: Body, *, frozen_pct: float, now_ms: int) -> bytes | None:
    """The payload that leaves the device, its first effect noted; None = the message is withheld. Bends `body`."""
    for silent in (FaultKind.OFFLINE, FaultKind.REBOOT, FaultKind.STALE):
        record = faults.active(index, silent)
        if record is not None:
            record.note(now_ms, "live message withheld")
            return None
    for kind, effect in _SHOWN.items():
        record = faults.active(index, kind)
        if record is not None:
            record.note(now_ms, effect)
    record = faults.active(index, FaultKind.FROZEN_SOC)
    if record is not None:
        body["soc_pct"] = frozen_pct
        record.note(now_ms, "frozen state of charge reported")
    record = faults.active(index, FaultKind.WRONG_SIGN)
    if record is not None and _turn_sign(body):
        record.note(now_ms, "power reported with the wrong sign")
    record = faults.active(index, FaultKind.DISHONEST_ID)
    if record is not None:
        body["id"] = record.fault.claims or "somebody-else"
        record.note(now_ms, "foreign id sent")
    record = faults.active(index, FaultKind.GARBAGE)
    if record is None:
        return orjson.dumps(body)
    record.note(now_ms, "garbage sent")
    return garbled(body, now_ms // 1000)


def spoil_energy(faults: FaultBook, index: int, body: Body) -> None:
    """Bend an energy message: powers only. Identity and energy stay right, so every acknowledged message counts."""
    if faults.active(index, FaultKind.WRONG_SIGN) is not None:
        _turn_sign(body)
    if faults.active(index, FaultKind.GARBAGE) is not None:
        body["battery_w"] = body["soc_pct"] = None


def _turn_sign(body: Body) -> bool:
    """Turn the sign of battery_w; False where there is nothing to turn."""
    power_w = body["battery_w"]
    if not isinstance(power_w, float) or power_w == 0:
        return False
    body["battery_w"] = -power_w
    return True
