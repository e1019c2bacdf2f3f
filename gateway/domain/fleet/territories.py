"""The territories of a fleet by number. Many homes share one: an area is matched with territories, not with homes."""

import numpy as np
from numpy.typing import NDArray

from gateway.domain.registry.territory import MEMBERS, NOWHERE, Area, Territory, folded
from gateway.domain.types import Bools

NOTHING = -1


class Territories:
    """Territories in the order of appearance; `known[number]`. Nothing is ever taken out."""

    def __init__(self) -> None:
        self.known: list[Territory] = []
        self._numbers: dict[tuple[str, ...], int] = {("", "", "", ""): NOTHING}
        self._codes: dict[str, dict[str, int]] = {member: {} for member in MEMBERS}
        self._columns: dict[str, NDArray[np.int32]] = {member: np.zeros(64, dtype=np.int32) for member in MEMBERS}

    def index(self, *texts: str) -> int:
        """Number of a territory by its members in their order, given on first sight; -1 where nothing is known of
        it."""
        number = self._numbers.get(texts)
        if number is None:
            number = self._numbers[texts] = len(self.known)
            members = dict(zip(MEMBERS, texts, strict=True))
            self.known.append(Territory(**members))
            for member, text in members.items():
                self._note(member, number, text)
        return number

    def _note(self, member: str, number: int, text: str) -> None:
        codes, column = self._codes[member], self._columns[member]
        if number >= len(column):
            column = self._columns[member] = np.concatenate([column, np.zeros(len(column), dtype=np.int32)])
        name = folded(text)
        column[number] = codes.setdefault(name, len(codes)) if name else NOTHING

    def at(self, number: int) -> Territory:
        """The territory of a number."""
        return NOWHERE if number < 0 else self.known[number]

    def matching(self, area: Area, begin: int = 0) -> Bools:
        """Which territories, from the number `begin` on, an area covers by where they are."""
        inside: Bools = np.full(len(self.known) - begin, bool(area))
        for member, texts in area.named().items():
            codes = self._codes[member]
            wanted = np.zeros(len(codes) + 1, dtype=np.bool_)
            wanted[[codes[name] for name in map(folded, texts) if name in codes]] = True
            wanted[NOTHING] = False
            inside &= wanted[self._columns[member][begin : len(self.known)]]
        return inside

    def missing(self, area: Area) -> dict[str, list[str]]:
        """What an area names that no territory has, by member."""
        found = {
            member: [text for text in texts if folded(text) not in self._codes[member]]
            for member, texts in area.named().items()
        }
        return {member: texts for member, texts in found.items() if texts}
