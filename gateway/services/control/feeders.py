"""The most each feeder may carry, as configured."""

import math

import numpy as np

from gateway.domain.fleet.fleet import Fleet
from gateway.domain.types import Floats
from gateway.services.settings import FeederSettings


class FeederCeilings:
    """Kept until the fleet has another feeder."""

    def __init__(self, settings: FeederSettings, fleet: Fleet) -> None:
        self._settings = settings
        self._fleet = fleet
        self._most_w: Floats = np.empty(0)

    def most_w(self) -> Floats | None:
        """By feeder, W; None where nothing bounds any."""
        feeders = self._settings
        if feeders.ceiling_kw is None and not feeders.ceilings_kw:
            return None
        names = self._fleet.feeders.texts
        if len(names) != len(self._most_w):
            default_kw = math.inf if feeders.ceiling_kw is None else feeders.ceiling_kw
            self._most_w = np.array([feeders.ceilings_kw.get(name, default_kw) * 1000 for name in names])
        return self._most_w
