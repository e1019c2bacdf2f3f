"""What a rule of a program is: a value, how well it is known, and what breaking it does."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Effect(StrEnum):
    """What breaking a rule does: the event is refused, is narrowed to what the rule allows, or goes with a warning."""

    REFUSE = "refuse"
    CLIP = "clip"
    WARN = "warn"


class Certainty(StrEnum):
    """How well a value is known. `verified`: read in a text of the program itself; `reported`: in a text that cites
    one; `inferred`: worked out from those; `unverified`: none was found that says so."""

    VERIFIED = "verified"
    REPORTED = "reported"
    INFERRED = "inferred"
    UNVERIFIED = "unverified"


class Asker(Enum):
    """Who asks for a dispatch: the program's own dispatcher, or somebody here."""

    PROGRAM = "program"
    LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evident(Generic[T]):
    """A value of a program that binds nobody, with its certainty and where it is read."""

    value: T
    certainty: Certainty
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Generic[T]):
    """A value of a program with its effect, its certainty and where it is read."""

    value: T
    effect: Effect
    certainty: Certainty
    source: str
