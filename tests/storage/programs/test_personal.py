"""Personal data is encrypted, erased for good, and in no archive."""

import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from gateway.clock import ManualClock
from gateway.domain.errors import CorruptState, StorageError
from gateway.storage.archive import export_archive
from gateway.storage.programs.personal import NAME, SqlitePersonal

NAME_OF = "Ada Canary-Lovelace"
DATA = {"end_customer_name": NAME_OF, "street_1": "1 Canary Row"}
KEY, OTHER = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def opened(directory: Path, *keys: str) -> SqlitePersonal:
    store = SqlitePersonal(directory, keys=keys or (KEY,))
    store.open()
    return store


def on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.glob("personal*")))


async def test_what_is_kept_comes_back_and_lies_nowhere_in_the_clear(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await store.keep({"c-1": DATA, "c-2": {"city": "Canaryville"}})
    assert await store.reveal("c-1") == DATA
    assert await store.reveal("nobody") is None
    assert await store.known(["c-1", "nobody"]) == {"c-1"}
    assert b"anary" not in on_disk(tmp_path)
    store.close()
    assert (tmp_path / NAME).stat().st_mode & 0o077 == 0


async def test_what_is_erased_is_gone_from_the_files(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await store.keep({"c-1": DATA})
    with closing(sqlite3.connect(tmp_path / NAME)) as db, db:
        sealed = db.execute("SELECT sealed FROM people").fetchone()[0]
    assert sealed in on_disk(tmp_path)
    assert await store.erase("c-1")
    assert not await store.erase("c-1")
    assert sealed[:40] not in on_disk(tmp_path)
    assert await store.reveal("c-1") is None
    store.close()


async def test_a_key_is_replaced_and_the_former_one_may_go(tmp_path: Path) -> None:
    store = opened(tmp_path, KEY)
    await store.keep({"c-1": DATA})
    store.close()
    both = opened(tmp_path, OTHER, KEY)
    assert await both.reveal("c-1") == DATA
    both.close()
    alone = opened(tmp_path, OTHER)
    assert await alone.reveal("c-1") == DATA
    assert alone.warnings() == []
    alone.close()


async def test_data_that_no_key_opens_stays_as_it_is_and_is_said(tmp_path: Path) -> None:
    store = opened(tmp_path, KEY)
    await store.keep({"c-1": DATA})
    store.close()
    wrong = opened(tmp_path, OTHER)
    assert wrong.warnings() == ["personal data cannot be read: no key opens the data of 1 customers"]
    with pytest.raises(StorageError) as refused:
        await wrong.reveal("c-1")
    assert "anary" not in str(refused.value)
    wrong.close()
    again = opened(tmp_path, KEY)
    assert await again.reveal("c-1") == DATA
    again.close()


async def test_without_a_key_data_is_erased_and_neither_kept_nor_revealed(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await store.keep({"c-1": DATA})
    store.close()
    keyless = SqlitePersonal(tmp_path, keys=[])
    keyless.open()
    assert not keyless.can_keep
    assert keyless.warnings() == ["personal data cannot be read: no key opens the data of 1 customers"]
    with pytest.raises(StorageError):
        await keyless.keep({"c-2": DATA})
    with pytest.raises(StorageError):
        await keyless.reveal("c-1")
    assert await keyless.erase("c-1")
    assert await keyless.known(["c-1"]) == set()
    keyless.close()


async def test_a_row_in_the_place_of_another_is_refused(tmp_path: Path) -> None:
    store = opened(tmp_path)
    await store.keep({"c-1": DATA, "c-2": {"city": "Canaryville"}})
    with closing(sqlite3.connect(tmp_path / NAME)) as db, db:
        db.execute("UPDATE people SET sealed = (SELECT sealed FROM people WHERE ref = 'c-1') WHERE ref = 'c-2'")
    with pytest.raises(CorruptState):
        await store.reveal("c-2")
    store.close()


async def test_an_archive_of_the_state_holds_no_personal_data(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    store = opened(state)
    await store.keep({"c-1": DATA})
    store.close()
    export_archive(state, tmp_path / "out.tgz", version="1", now=ManualClock().now(), damaged=True)
    with tarfile.open(tmp_path / "out.tgz") as archive:
        assert not [name for name in archive.getnames() if "personal" in name]


def test_one_function_alone_decrypts() -> None:
    code = Path(__file__).parents[3] / "gateway"
    found = [path.name for path in code.rglob("*.py") for _ in range(path.read_text().count(".decrypt("))]
    assert found == ["personal.py"]
