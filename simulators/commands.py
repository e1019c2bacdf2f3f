"""The command message of the reference firmware protocol, as a device reads it, and its answer.

JSON: id, cmd (grows), op setpoint | hold | block | release | reserve, valid_until (UTC ms), setpoint_w and lease_s, or
reserve_pct. Answer: id, cmd, result, reason, t.
"""

from dataclasses import dataclass
from enum import Enum

import orjson

LEASE_S_MAX = 86_400


class Op(Enum):
    SETPOINT = "setpoint"
    HOLD = "hold"
    BLOCK = "block"
    RELEASE = "release"
    RESERVE = "reserve"


class Result(Enum):
    APPLIED = "applied"
    EXPIRED = "expired"
    OLDER = "older"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A well-formed command; `setpoint_w` (+ = discharge), `lease_s` and `reserve_pct` are 0 where the op has none."""

    device: str
    cmd: int
    op: Op
    valid_until_ms: int
    setpoint_w: int = 0
    lease_s: int = 0
    reserve_pct: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """A payload that is no command; `cmd` is 0 where it cannot be read."""

    cmd: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSeen:
    """One command that reached a device, and what came of it."""

    t_ms: int
    index: int
    device: str
    cmd: int
    op: Op | None
    setpoint_w: int
    lease_s: int
    reserve_pct: float
    valid_until_ms: int
    result: Result | None
    reason: str


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_command(payload: bytes) -> Command | Malformed:
    """Read a payload strictly; nothing is guessed or filled in."""
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return Malformed(cmd=0, reason="json")
    if not isinstance(body, dict):
        return Malformed(cmd=0, reason="shape")
    cmd = _integer(body.get("cmd"))
    if cmd is None or cmd <= 0:
        return Malformed(cmd=0, reason="cmd")
    device, valid_until = body.get("id"), _integer(body.get("valid_until"))
    op = next((op for op in Op if op.value == body.get("op")), None)
    if not isinstance(device, str) or valid_until is None or op is None:
        return Malformed(cmd=cmd, reason="shape")
    setpoint_w, lease_s, reserve_pct = 0, 0, 0.0
    if op in {Op.SETPOINT, Op.HOLD, Op.BLOCK}:
        lease = _integer(body.get("lease_s"))
        setpoint = _integer(body.get("setpoint_w")) if op is Op.SETPOINT else 0
        if lease is None or not 0 < lease <= LEASE_S_MAX or setpoint is None:
            return Malformed(cmd=cmd, reason="setpoint")
        setpoint_w, lease_s = setpoint, lease
    elif op is Op.RESERVE:
        reserve = body.get("reserve_pct")
        if not isinstance(reserve, int | float) or isinstance(reserve, bool) or not 0 <= reserve <= 100:
            return Malformed(cmd=cmd, reason="reserve")
        reserve_pct = float(reserve)
    return Command(
        device=device,
        cmd=cmd,
        op=op,
        valid_until_ms=valid_until,
        setpoint_w=setpoint_w,
        lease_s=lease_s,
        reserve_pct=reserve_pct,
    )


def build_ack(*, device: str, cmd: int, result: Result, reason: str, now_ms: int) -> bytes:
    body: dict[str, str | int] = {"id": device, "cmd": cmd, "result": result.value, "t": now_ms}
    if reason:
        body["reason"] = reason
    return orjson.dumps(body)
