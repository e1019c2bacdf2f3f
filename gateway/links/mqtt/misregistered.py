"""Devices that speak as another product than they are registered as: none of their messages counts."""

import numpy as np
from numpy.typing import NDArray

from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import Bools


class Misregistered:
    """By slot, the number of the profile that a device last spoke as."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._spoken: dict[int, int] = {}

    def observe(self, slots: NDArray[np.int32], own: Bools, profile: int) -> None:
        """Note messages of a profile; `own` are those of devices that are registered as it."""
        if not own.all():
            self._spoken |= dict.fromkeys(slots[~own].tolist(), profile)
        if self._spoken:
            for slot in self._spoken.keys() & set(slots[own].tolist()):
                del self._spoken[slot]

    def warnings(self) -> list[str]:
        """How many there are now, and what one of them is."""
        registered, texts = self._fleet.nameplate.profile, self._fleet.profiles.texts
        self._spoken = {slot: number for slot, number in self._spoken.items() if registered[slot] != number}
        if not self._spoken:
            return []
        slot = min(self._spoken)
        said, known = texts[self._spoken[slot]], texts[registered[slot]]
        return [
            f"devices: {len(self._spoken)} speak as another product than they are registered as, "
            f"first {self._fleet.ids[slot]}: {said}, registered as {known}"
        ]
