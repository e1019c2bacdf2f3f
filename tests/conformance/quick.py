"""A profile whose pauses are those of a world that runs `SPEED` times faster; what is told to the device stays."""

from typing import Any

from gateway.profiles.control_schema import Control, Step
from gateway.profiles.schema import Overlay, Polling, ProfileDocument

SPEED = 20.0
TIMEOUT_S = 0.5
ENERGY_S = 0.12
SLOW_S = 0.15
LIVE_S_MAX = 0.06
KEEPALIVE_S = 0.2
BROKER_S = 0.3
FOLLOWED_S_MIN = 0.2


def quick(document: ProfileDocument, speed: float = SPEED) -> ProfileDocument:
    """The profile with every pause of the gateway's own divided by `speed`."""
    # Brokers and their clients are processes that take their own time.
    least_s = BROKER_S if document.mqtt is not None else 0.0
    points = {
        name: point.model_copy(
            update={"readback_s": max(least_s, point.readback_s / speed) if point.readback_s else point.readback_s}
        )
        for name, point in document.points.items()
    }
    changed: dict[str, Any] = {
        "points": points,
        "polling": Polling.model_construct(
            live_s=min(LIVE_S_MAX, document.polling.live_s / speed), energy_s=ENERGY_S, slow_s=SLOW_S
        ),
        "control": _quick_control(document.control, speed),
        "overlays": tuple(_quick_overlay(overlay, speed) for overlay in document.overlays),
    }
    if document.modbus is not None:
        changed["modbus"] = document.modbus.model_copy(
            update={"rest_s": 0.0, "spacing_s": 0.0, "timeout_s": TIMEOUT_S, "busy_wait_s": 0.02}
        )
    if document.http is not None:
        changed["http"] = document.http.model_copy(
            update={"timeout_s": TIMEOUT_S, "spacing_s": 0.0, "cool_down_s": 0.2, "breaker_s": 0.2}
        )
    if document.mqtt is not None:
        keepalive = document.mqtt.keepalive
        changed["mqtt"] = document.mqtt.model_copy(
            update={
                "quiet_s": document.mqtt.quiet_s / speed,
                "keepalive": keepalive.model_copy(update={"every_s": KEEPALIVE_S}) if keepalive else None,
            }
        )
    return document.model_copy(update=changed)


def _live_s(document: ProfileDocument, speed: float) -> float:
    """What follows load and PV does so only while readings are a few polls old: a busy machine needs room."""
    scaled_s = document.polling.live_s / speed
    follows = document.control is not None and document.control.follow_s is not None
    return max(FOLLOWED_S_MIN, scaled_s) if follows else min(LIVE_S_MAX, scaled_s)


def _quick_control(control: Control | None, speed: float) -> Control | None:
    if control is None:
        return None

    def steps(before: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(s.model_copy(update={"wait_s": s.wait_s / speed}) if s.wait_s else s for s in before)

    changed: dict[str, Any] = {
        name: steps(getattr(control, name)) for name in ("begin", "discharge", "charge", "hold", "release", "reserve")
    }
    changed |= {"settle_s": control.settle_s / speed, "interval_s_min": control.interval_s_min / speed}
    changed["follow_s"] = control.follow_s / speed if control.follow_s else None
    if control.heartbeat is not None:
        changed["heartbeat"] = control.heartbeat.model_copy(update={"every_s": control.heartbeat.every_s / speed})
    return control.model_copy(update=changed)


def _quick_overlay(overlay: Overlay, speed: float) -> Overlay:
    return overlay.model_copy(update={"control": _quick_control(overlay.control, speed)})
