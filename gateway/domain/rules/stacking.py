"""Several programs on one battery: whose is what it gives.

What a battery gives covers its home's own load first; what is more is exported. A program is paid for load, for exports
or for both. Programs take in the order of their rank, each of what it is paid for and exports first, so that the load
is left to those that are paid for nothing else. Nothing is given to two of them, and what nobody takes is the home's
own use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

import numpy as np

from gateway.domain.types import Bools, Floats, Ints

MS_PER_H = 3_600_000


class PaidFor(StrEnum):
    """What a program pays for: what covers a home's own load, what the home exports, or both."""

    LOAD = "load"
    EXPORTS = "exports"
    BOTH = "load_and_exports"


@dataclass(frozen=True, slots=True, kw_only=True)
class StackingTerms:
    """What a program is `paid_for`, and what where another program is paid for nothing but load in the same home
    (`beside_load`; None = the same). `up_to_nomination`: not beyond what was nominated. `yields`: its events leave
    their members to the events of others, and to the preparation for them."""

    paid_for: PaidFor = PaidFor.BOTH
    beside_load: PaidFor | None = None
    up_to_nomination: bool = False
    yields: bool = False

    def within(self, paid_for: PaidFor) -> PaidFor:
        """What is paid for where an event itself is `paid_for` no more than that: load narrows, and both does not."""
        return PaidFor.LOAD if paid_for is PaidFor.LOAD else self.paid_for


ALONE = StackingTerms()
"""Those of a program that says nothing of it."""


class Shareable:
    """What batteries give and no program has taken yet. `load`: what each home would draw without its battery, below 0
    = it exports even so; NaN = unknown: then nobody knows what was export. None = nobody asks what covers a load: it
    all counts as that. Unknown `given` is nothing."""

    def __init__(self, given: Floats, load: Floats | None) -> None:
        self._given: Floats = np.fmax(given, 0.0)
        self._exports: Floats | None = None
        self._either: Floats | None = None
        self.unknown: Bools = np.zeros(len(given), dtype=np.bool_)
        self.doubtful: Bools = np.zeros(len(given), dtype=np.bool_)
        """Homes of which more may have been taken before than is known."""
        if load is None:
            self._load: Floats = self._given.copy()
            return
        self._load = np.fmax(load, 0.0)
        np.minimum(self._given, self._load, out=self._load)
        self._exports = self._given - self._load
        self.unknown = np.isnan(load) & (self._given > 0)
        if self.unknown.any():
            self._either = self._exports * self.unknown
            self._exports -= self._either

    def offered(self, paid_for: PaidFor, homes: Bools) -> Floats:
        """What a program could take."""
        if paid_for is PaidFor.BOTH:
            found = self.left
            found *= homes
            return found
        if paid_for is PaidFor.LOAD:
            return self._load * homes
        return np.zeros(len(homes)) if self._exports is None else self._exports * homes

    def take(self, paid_for: PaidFor, part: Floats) -> None:
        """Take `part` of what is offered: exports first."""
        if paid_for is PaidFor.LOAD or self._exports is None:
            self._load -= part
            return
        exports = np.minimum(part, self._exports)
        self._exports -= exports
        if paid_for is PaidFor.EXPORTS:
            return
        rest = np.subtract(part, exports, out=exports)
        if self._either is not None:
            either = np.minimum(rest, self._either)
            self._either -= either
            rest -= either
        self._load -= rest

    def doubt(self, paid_for: PaidFor, homes: Bools) -> Bools:
        """Homes of which it is not known what a program may have; what others take of those later is doubtful too."""
        if paid_for is PaidFor.BOTH:
            return homes & self.doubtful
        unknown: Bools = homes & self.unknown
        self.doubtful |= unknown
        return unknown

    def doubts(self, paid_for: PaidFor, homes: Bools) -> int:
        """How many homes those are."""
        return 0 if self._either is None else int(np.count_nonzero(self.doubt(paid_for, homes)))

    @property
    def left(self) -> Floats:
        """What nobody has taken."""
        left: Floats = self._load.copy() if self._exports is None else self._load + self._exports
        if self._either is not None:
            left += self._either
        return left

    @property
    def taken(self) -> Floats:
        """What programs have taken."""
        left = self.left
        return np.subtract(self._given, left, out=left)


def beside(terms: StackingTerms, paid_for: PaidFor, homes: Bools, for_load: Bools) -> list[tuple[PaidFor, Bools]]:
    """What a program is paid for, in which of its `homes`. `for_load`: homes in which a program is paid for nothing but
    load."""
    if terms.beside_load is None or paid_for is PaidFor.LOAD or not (homes & for_load).any():
        return [(paid_for, homes)]
    return [(terms.beside_load, homes & for_load), (paid_for, homes & ~for_load)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedClaim:
    """The claim of a program's event on what some `homes` (a mask) give in an interval, from `from_ms` to `until_ms`
    after its start. `rank`: 1 is first; claims of one rank stand in the order of their names. `nomination_w`: of each
    home, where that bounds what is paid. `exclusive`: groups of which a battery is in one `program` only."""

    name: str
    rank: int
    homes: Bools
    from_ms: int
    until_ms: int
    terms: StackingTerms = ALONE
    paid_for: PaidFor = PaidFor.BOTH
    nomination_w: Floats | None = None
    program: str = ""
    exclusive: frozenset[str] = frozenset()

    def may_share(self, other: "StackedClaim") -> bool:
        """Whether both may have a part of what one battery gives."""
        return self.program == other.program or not self.exclusive & other.exclusive

    @property
    def pays(self) -> PaidFor:
        return self.terms.within(self.paid_for)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramShare:
    """Whole Wh of each home that are a claim's. `known`: False where that rests on a load that nobody knows: a program
    that is paid for load or exports alone has nothing there, and one after it has the most that may be its own."""

    wh: Ints
    known: Bools


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacked:
    """What is whose, by the names of claims. `own_use`: what no program takes; with the shares it sums to what was
    discharged."""

    shares: Mapping[str, ProgramShare]
    own_use_wh: Ints


def stacked(discharged_wh: Ints, load_wh: Floats, claims: Sequence[StackedClaim], length_ms: int) -> Stacked:
    """ProgramShare what batteries gave in an interval of `length_ms` among claims, in whatever order those are.

    `discharged_wh` of each home, net, below 0 = it charged: no claim has a part in that. `load_wh`: what the home would
    have drawn without its battery, net of PV (NaN = unknown). Power is taken to be even over the interval. What a part
    of an interval leaves below a whole Wh is nobody's, and so it is the home's own use.
    """
    ranked = sorted(claims, key=lambda claim: (claim.rank, claim.name))
    if len({claim.name for claim in ranked}) < len(ranked):
        raise ValueError("two claims have one name")
    n = len(discharged_wh)
    wh_ms = {claim.name: np.zeros(n, dtype=np.int64) for claim in ranked}
    known = {claim.name: np.ones(n, dtype=np.bool_) for claim in ranked}
    given = np.maximum(discharged_wh, 0).astype(np.float64)
    edges = {0, length_ms} | {ms for claim in ranked for ms in (claim.from_ms, claim.until_ms)}
    inside = sorted(ms for ms in edges if 0 <= ms <= length_ms)
    for from_ms, until_ms in pairwise(inside):
        now = _in_force([claim for claim in ranked if claim.from_ms <= from_ms and until_ms <= claim.until_ms])
        for_load = np.zeros(n, dtype=np.bool_)
        for claim in now:
            for_load |= claim.homes & (claim.pays is PaidFor.LOAD)
        whole = Shareable(given, np.floor(load_wh))
        for claim in now:
            most = np.full(n, np.inf)
            if claim.nomination_w is not None:
                most = np.floor(claim.nomination_w * length_ms / MS_PER_H)
            for paid_for, homes in beside(claim.terms, claim.pays, claim.homes, for_load):
                known[claim.name] &= ~whole.doubt(paid_for, homes)
                part = np.minimum(whole.offered(paid_for, homes), most)
                whole.take(paid_for, part)
                wh_ms[claim.name] += part.astype(np.int64) * (until_ms - from_ms)
    shares = {name: ProgramShare(wh=amount // length_ms, known=known[name]) for name, amount in wh_ms.items()}
    taken = sum((share.wh for share in shares.values()), np.zeros(n, dtype=np.int64))
    return Stacked(shares=shares, own_use_wh=discharged_wh - taken)


def _in_force(ranked: Sequence[StackedClaim]) -> list[StackedClaim]:
    """The claims, each without the homes in which one before it may not share with it."""
    found: list[StackedClaim] = []
    for claim in ranked:
        homes = claim.homes
        for other in found:
            if not claim.may_share(other):
                homes = homes & ~other.homes
        found.append(replace(claim, homes=homes))
    return found
