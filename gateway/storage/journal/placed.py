"""Where devices were, from the journal's file: read-only, beside the daemon that writes it."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from gateway.domain.errors import CorruptState, StorageError
from gateway.domain.registry.placement import Placement
from gateway.storage.registry import placements

BUSY_S = 5.0


def placements_beside(path: Path, from_ms: int, until_ms: int) -> list[Placement]:
    """The placements of all devices that are valid at some time within `[from_ms, until_ms)`, UTC ms. A journal that is
    not there has none. Raises StorageError, CorruptState."""
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=BUSY_S)) as db:
            return placements.within(db, from_ms, until_ms)
    except sqlite3.OperationalError as error:
        raise StorageError(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise CorruptState(f"{path}: {error}") from error
