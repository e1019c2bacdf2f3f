"""How the meters of homes and of utilities compare, as the process beside the daemon has counted it last.

`money/meters.json`: `{"at_ms": MS, "mismatches": {KIND: N}, "rows": [SiteMatch, ..]}`, there whole or not at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.programs.meter_match import MeterMatch
from gateway.files import replacing
from gateway.storage.programs.daily import DIRECTORY

NAME = "meters.json"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteMatch:
    """A home's own meter beside the utility's `meter`, by intervals of `length_s`, with the import that holds."""

    site: str
    meter: str
    length_s: int
    revision: int
    match: MeterMatch


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchCounts:
    """How many sites have a mismatch, by its kind."""

    at_ms: int = 0
    mismatches: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedMatches(MatchCounts):
    """The same, and every site that was compared."""

    rows: tuple[SiteMatch, ...] = ()


def write_matches(state_dir: Path, counted: CountedMatches) -> None:
    """Raises StorageError."""
    path = state_dir / DIRECTORY / NAME
    try:
        with replacing(path) as file:
            file.write(msgspec.json.encode(counted))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error


def read_matches(state_dir: Path) -> CountedMatches:
    """Nothing where nothing was compared yet. Raises StorageError, CorruptState."""
    return _read(state_dir / DIRECTORY / NAME, CountedMatches, CountedMatches())


def read_counts(state_dir: Path) -> MatchCounts:
    """The counts alone: what the rows take to read does not matter then. Raises StorageError, CorruptState."""
    return _read(state_dir / DIRECTORY / NAME, MatchCounts, MatchCounts())


def _read(path: Path, kind: type[T], none: T) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return none
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise CorruptState(f"{path}: {error}") from error
