"""What a figure was worked out from, by kind and name, and in words what is different in another one's.

Inputs are texts: two figures of the same inputs are one, and which of them changed can be told without the figures.
"""

import hashlib
from collections.abc import Iterator, Mapping
from enum import StrEnum

NAMED_MAX = 3
TOLD_MAX = 40


class InputKind(StrEnum):
    """The kinds of inputs of an event's performance, in the order in which they are told."""

    EVENT = "event"
    PROGRAM = "program"
    RECORDS = "delivery records"
    MEMBERS = "members"
    INTERVALS = "intervals"
    DAYS = "days before"
    OTHERS = "other events"
    AREAS = "price areas"
    TYPES = "official hours"
    PRICES = "prices"


SPELLED = frozenset({InputKind.EVENT, InputKind.PROGRAM, InputKind.AREAS, InputKind.TYPES, InputKind.PRICES})
"""Kinds of which a value says something to a reader; of the others it is a digest."""

Inputs = Mapping[InputKind, Mapping[str, str]]


def digest_of(inputs: Inputs) -> str:
    """The same for the same inputs, and for no others."""
    found = hashlib.sha256()
    for kind in InputKind:
        for name, value in sorted(inputs.get(kind, {}).items()):
            found.update(f"{kind.value}\0{name}\0{value}\0".encode())
    return found.hexdigest()


def differences(before: Inputs, now: Inputs) -> list[str]:
    """What changed, a sentence for each kind or for each value that says something."""
    found: list[str] = []
    for kind in InputKind:
        old, new = before.get(kind, {}), now.get(kind, {})
        changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        if kind in SPELLED:
            found += _spelled(kind, old, new, changed)
        elif changed:
            found.append(f"{kind.value} of {_names(changed)} changed")
    return found[:TOLD_MAX]


def _spelled(kind: InputKind, old: Mapping[str, str], new: Mapping[str, str], changed: list[str]) -> Iterator[str]:
    for name in changed:
        yield f"{kind.value}: {name} was {old.get(name) or 'missing'} and is {new.get(name) or 'missing'}"


def _names(names: list[str]) -> str:
    some = ", ".join(names[:NAMED_MAX])
    return some if len(names) <= NAMED_MAX else f"{some} and {len(names) - NAMED_MAX} more"
