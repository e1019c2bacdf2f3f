"""Summary of a product: identity, control, watchdog, evidence."""

from dataclasses import dataclass

from gateway.profiles.compile import Codec
from gateway.profiles.language.product import ProfileDocument

RESERVE_ONLY = "reserve only"
TELEMETRY_ONLY = "telemetry only"
MESSAGE_DOMAIN = "battery_ac"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`control`: where the setpoint acts, or `reserve only`, or `telemetry only`; `watchdog` its kind, "" = none.
    `points`, `readings` and `sequences` are numbers of them; overlays are not counted."""

    profile: str
    maker: str
    product: str
    transport: str
    control: str
    watchdog: str
    lease_s: float | None
    evidence: str
    digest: str
    points: int
    readings: int
    sequences: int


def summary(codec: Codec) -> Summary:
    """Summarise a compiled profile."""
    document, control = codec.document, _control(codec.document)
    watchdog = document.watchdog
    return Summary(
        profile=codec.name,
        maker=document.maker,
        product=document.product,
        transport=document.transport,
        control=control,
        watchdog=watchdog.kind if watchdog is not None else "",
        lease_s=watchdog.lease_s if watchdog is not None else None,
        evidence=document.evidence.tag.value,
        digest=codec.digest,
        points=len(document.points) + sum(len(message.points) for message in document.messages.values()),
        readings=len(document.readings) or len({n for message in document.messages.values() for n in message.points}),
        sequences=_sequences(document),
    )


def _control(document: ProfileDocument) -> str:
    if document.commands is not None:
        return MESSAGE_DOMAIN
    if document.control is None:
        return TELEMETRY_ONLY
    return document.control.domain if document.control.discharge else RESERVE_ONLY


def _sequences(document: ProfileDocument) -> int:
    if document.commands is not None:
        return len(document.commands.forms)
    return sum(bool(steps) for steps in document.control.sequences().values()) if document.control is not None else 0
