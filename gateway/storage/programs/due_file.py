"""What is missing for each program's data deadline, as the process beside the daemon has counted it last.

`money/due_data.json`: `{"at_ms": MS, "due": [DueData, ..]}`, there whole or not at all, and written by that process
alone.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.programs.due_data import DueData
from gateway.files import replacing
from gateway.storage.programs.daily import DIRECTORY

NAME = "due_data.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedDue:
    """What was counted at `at_ms` (UTC)."""

    at_ms: int = 0
    due: tuple[DueData, ...] = ()


def write_due(state_dir: Path, counted: CountedDue) -> None:
    """Raises StorageError."""
    try:
        with replacing(state_dir / DIRECTORY / NAME) as file:
            file.write(msgspec.json.encode(counted))
    except OSError as error:
        raise StorageError(f"{state_dir / DIRECTORY / NAME}: {error.strerror or error}") from error


def read_due(state_dir: Path) -> CountedDue:
    """Nothing where nothing was counted yet. Raises StorageError, CorruptState."""
    path = state_dir / DIRECTORY / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=CountedDue)
    except FileNotFoundError:
        return CountedDue()
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    except msgspec.MsgspecError as error:
        raise CorruptState(f"{path}: {error}") from error
