"""How far long work is: told to whoever wants to know, a step at a time."""

from collections.abc import Callable
from dataclasses import dataclass

Progress = Callable[[int, int], None]
"""Is told how much is done, and of how much in all."""


def unseen(_done: int, _total: int) -> None:
    """Nobody looks."""


@dataclass(slots=True)
class Tally:
    """Adds up what is done of `total`, and tells it."""

    told: Progress
    total: int
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        self.told(self.done, self.total)
