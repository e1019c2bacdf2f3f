"""What is well formed and yet may be a mistake: a warning for each."""

from collections.abc import Iterator

from gateway.profiles.language.product import Overlay, ProfileDocument
from gateway.profiles.language.quantities import COUNTERS

POWER = "battery_w"


def doubts_of(document: ProfileDocument) -> list[str]:
    """Every doubt about a document without faults, each with its path."""
    return [
        f"overlays.{i}.{doubt}" for i, overlay in enumerate(document.overlays) for doubt in _unmoved(document, overlay)
    ]


def _unmoved(document: ProfileDocument, overlay: Overlay) -> Iterator[str]:
    """Counters that an overlay leaves where they are while it moves the power. One that stays is given again."""
    if not _moves(document, overlay, POWER):
        return
    stay = [name for name in COUNTERS if name in document.readings and not _moves(document, overlay, name)]
    if stay:
        yield (
            f"readings: {POWER} is read elsewhere than in the profile, {' and '.join(stay)} are not; "
            "if that is so, give them here again"
        )


def _moves(document: ProfileDocument, overlay: Overlay, name: str) -> bool:
    reading = document.readings.get(name)
    return name in overlay.readings or (reading is not None and not overlay.points.keys().isdisjoint(reading.points()))
