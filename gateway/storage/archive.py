"""Exports a state directory to one file, and imports it: for backups and for moving a gateway to another machine.

The archive is a gzip-compressed tar (GNU format, regular files only, readable with `tar`). Its first member is
`manifest.json` (`Manifest`: versions, and path, size and sha256 of every file); then each file as `state/<path>`, in
the manifest's order, and nothing else. An export first writes the WAL of each SQLite file back into the file. It leaves
out what a process needs only while it runs (lock, half-written files, WAL and shared memory), and who customers are
(`personal.sqlite`); it includes files set aside as damaged on demand. The caller has the lock of the directory.

An import trusts nothing: names, kinds, sizes and hashes must match the manifest, and it unpacks no more than that. It
unpacks into a directory beside the old one and exchanges the two in one step.
"""

import ctypes
import errno
import gzip
import hashlib
import os
import re
import shutil
import sqlite3
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NoReturn
from urllib.parse import quote

import msgspec

from gateway.domain.errors import InvalidInput, StorageError
from gateway.domain.types import Now
from gateway.files import replacing, sync_directory
from gateway.progress import Progress, Tally, unseen
from gateway.storage import checkpoint
from gateway.storage.interval_log import rows as interval_rows
from gateway.storage.journal import journal
from gateway.storage.programs import personal
from gateway.storage.spool import records
from gateway.storage.spool.spool import CORRUPT_SUFFIX

FORMAT = 1
MANIFEST = "manifest.json"
PREFIX = "state/"
LOCK = "lock"
MANIFEST_BYTES = 16 << 20
# The longest name that the tar format stores without extra members.
NAME_BYTES = 100
COMPRESSION = 1
CHUNK = 1 << 20
_ZEROS = bytes(tarfile.BLOCKSIZE)
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Files that one run of a process writes and abandons.
_PASSING = (".new", ".part", "-wal", "-shm", "-journal")
_EXCHANGE, _HERE = 2, -100

KNOWN = {
    "journal": journal.SCHEMA_VERSION,
    "intervals": interval_rows.SCHEMA_VERSION,
    "spool": records.VERSION,
    "checkpoint": int(checkpoint.MAGIC[-2:]),
}
"""The newest version of each kind of content that this gateway reads."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file: path within the state directory, size in bytes."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of an archive. `created` in UTC (RFC 3339); `schemas`: the version of each kind of content."""

    format: int
    gateway: str
    created: str
    schemas: dict[str, int]
    files: list[Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedState:
    """What was imported, and where the previous state is kept (None: there was none)."""

    manifest: Manifest
    before: Path | None


def export_archive(
    state_dir: Path, out: Path, *, version: str, now: Now, damaged: bool, progress: Progress = unseen
) -> Manifest:
    """Write the archive of a state directory to `out`, whole or not at all; `damaged`: include files set aside as
    damaged; `progress` is told in bytes, each of which is read twice. Raises InvalidInput for a place or a content that
    cannot be archived, StorageError if a disk refuses."""
    if out.resolve().is_relative_to(state_dir.resolve()):
        raise InvalidInput([f"{out}: within the state directory"])
    try:
        schemas = KNOWN | _truncate_wals(state_dir)
        paths = list(_files(state_dir, damaged=damaged))
        tally = Tally(progress, total=2 * sum(path.stat().st_size for path in paths))
        files = [_entry(state_dir, path, tally) for path in paths]
        created = datetime.fromtimestamp(now.utc_ms // 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        manifest = Manifest(format=FORMAT, gateway=version, created=created, schemas=schemas, files=files)
        with (
            replacing(out) as file,
            gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=COMPRESSION, mtime=0) as packed,
        ):
            _write(packed, state_dir, manifest, now.utc_ms // 1000, tally)
    except OSError as error:
        raise StorageError(f"{error.filename or out}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise StorageError(f"{state_dir}: {error}") from error
    return manifest


def import_archive(
    source: Path, state_dir: Path, *, now: Now, replace: bool, progress: Progress = unseen
) -> ImportedState:
    """Unpack an archive and put it in the place of `state_dir`, which must exist and be locked; `replace`: even if it
    is not empty; `progress` is told in bytes. A kill at any time leaves the old state or the new. Raises InvalidInput,
    StorageError."""
    state_dir = state_dir.resolve()
    occupied = any(path.name != LOCK for path in state_dir.iterdir())
    if occupied and not replace:
        raise InvalidInput([f"state_dir {state_dir}: not empty; --replace keeps what is there aside"])
    fresh = state_dir.with_name(f"{state_dir.name}.importing")
    stamp = datetime.fromtimestamp(now.utc_ms // 1000, tz=UTC).strftime("%Y%m%dT%H%M%SZ")
    before = state_dir.with_name(f"{state_dir.name}.before-{stamp}")
    try:
        if fresh.exists():
            shutil.rmtree(fresh)
        if before.exists():
            raise InvalidInput([f"{before}: is there already"])
        fresh.mkdir(mode=0o700)
        try:
            with source.open("rb") as file:
                manifest = _Reader(source, file).unpack(fresh, progress)
            _own(fresh, state_dir)
            _swap(fresh, state_dir, before)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        sync_directory(state_dir.parent)
        if not occupied:
            shutil.rmtree(before)
    except OSError as error:
        raise StorageError(f"{error.filename or state_dir}: {error.strerror or error}") from error
    return ImportedState(manifest=manifest, before=before if occupied else None)


def _truncate_wals(state_dir: Path) -> dict[str, int]:
    """Write the WAL of every SQLite file back into the file; returns the newest schema of each kind found."""
    found: dict[str, int] = {}
    for path in sorted(state_dir.rglob("*.sqlite")):
        address = f"file:{quote(str(path.absolute()))}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as db:
            try:
                version = int(db.execute("pragma user_version").fetchone()[0])
                busy = db.execute("pragma wal_checkpoint(truncate)").fetchone()[0]
            except sqlite3.DatabaseError as error:
                raise StorageError(f"{path}: {error}") from error
        if busy:
            raise StorageError(f"{path}: another process has it open")
        kind = path.parent.name if path.parent != state_dir else path.stem
        if kind in KNOWN:
            found[kind] = max(found.get(kind, 0), version)
    return found


def _files(state_dir: Path, *, damaged: bool) -> Iterator[Path]:
    for path in sorted(state_dir.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise InvalidInput([f"{path}: neither a file nor a directory"])
        name = str(path.relative_to(state_dir))
        if path.is_dir() or name in (LOCK, personal.NAME) or name.endswith(_PASSING):
            continue
        if name.endswith(CORRUPT_SUFFIX) and not damaged:
            continue
        if not _PATH.fullmatch(name) or len(PREFIX + name) > NAME_BYTES:
            raise InvalidInput([f"{path}: an archive cannot store this name"])
        yield path


def _entry(state_dir: Path, path: Path, tally: Tally) -> Entry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        tally.add(file.tell())
        return Entry(path=str(path.relative_to(state_dir)), size=file.tell(), sha256=digest)


def _write(packed: gzip.GzipFile, state_dir: Path, manifest: Manifest, mtime_s: int, tally: Tally) -> None:
    text = msgspec.json.encode(manifest)
    if len(text) > MANIFEST_BYTES:
        raise InvalidInput([f"{state_dir}: too many files"])
    packed.write(_header(MANIFEST, len(text), mtime_s))
    packed.write(text + _padding(len(text)))
    for entry in manifest.files:
        packed.write(_header(PREFIX + entry.path, entry.size, mtime_s))
        digest, size = hashlib.sha256(), 0
        with (state_dir / entry.path).open("rb") as file:
            while chunk := file.read(min(CHUNK, entry.size - size)):
                digest.update(chunk)
                size += len(chunk)
                packed.write(chunk)
                tally.add(len(chunk))
        if digest.hexdigest() != entry.sha256:
            raise StorageError(f"{state_dir / entry.path}: changed while it was exported")
        packed.write(_padding(size))
    packed.write(2 * _ZEROS)


def _header(name: str, size: int, mtime_s: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, mtime_s, 0o600
    return member.tobuf(format=tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


class _Reader:
    """Reads an archive front to back. Raises InvalidInput for anything that does not match its manifest."""

    def __init__(self, source: Path, file: BinaryIO) -> None:
        self._source = source
        self._packed = gzip.GzipFile(fileobj=file, mode="rb")

    def unpack(self, into: Path, progress: Progress) -> Manifest:
        """Every file of the archive into the directory `into`, durably."""
        manifest = self._manifest()
        tally = Tally(progress, total=sum(entry.size for entry in manifest.files))
        for entry in manifest.files:
            self._file(into, entry, tally)
        if self._bytes(2 * tarfile.BLOCKSIZE) != 2 * _ZEROS or self._some(1):
            self._refuse("contains more than its manifest names")
        for directory in [into, *(path for path in into.rglob("*") if path.is_dir())]:
            sync_directory(directory)
        return manifest

    def _manifest(self) -> Manifest:
        size = self._member(MANIFEST)
        if size > MANIFEST_BYTES:
            self._refuse("its manifest is too large")
        text = self._bytes(size)
        self._bytes(len(_padding(size)))
        try:
            version = msgspec.json.decode(text, type=_Version).format
            if version > FORMAT:
                self._refuse(f"format {version} is newer than {FORMAT}, the newest known")
            manifest = msgspec.json.decode(text, type=Manifest)
        except msgspec.MsgspecError as error:
            raise InvalidInput([f"{self._source}: its manifest cannot be read: {error}"]) from error
        for kind, version in manifest.schemas.items():
            if version > KNOWN.get(kind, 0):
                known = f"than {KNOWN[kind]}, the newest known" if kind in KNOWN else "than this gateway"
                self._refuse(f"{kind}: schema {version} is newer {known} (written by gateway {manifest.gateway})")
        self._check(manifest.files)
        return manifest

    def _check(self, files: list[Entry]) -> None:
        names = [entry.path for entry in files]
        parents = {str(parent) for name in names for parent in Path(name).parents}
        for entry in files:
            fits = _PATH.fullmatch(entry.path) and len(PREFIX + entry.path) <= NAME_BYTES and entry.path != LOCK
            if not fits or entry.size < 0 or not _SHA256.fullmatch(entry.sha256):
                self._refuse(f"{entry.path!r}: not a file of a state directory")
        twice = [name for name, times in Counter(names).items() if times > 1 or name in parents]
        if twice:
            self._refuse(f"{twice[0]!r}: named twice")

    def _file(self, into: Path, entry: Entry, tally: Tally) -> None:
        if self._member(PREFIX + entry.path) != entry.size:
            self._refuse(f"{entry.path}: its size does not match the manifest")
        path = into / entry.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest, left = hashlib.sha256(), entry.size
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            while left:
                chunk = self._bytes(min(CHUNK, left))
                left -= len(chunk)
                digest.update(chunk)
                file.write(chunk)
                tally.add(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != entry.sha256:
            self._refuse(f"{entry.path}: its hash does not match the manifest: damaged or tampered with")
        self._bytes(len(_padding(entry.size)))

    def _member(self, name: str) -> int:
        """The header of the member that must come next; returns its size."""
        try:
            member = tarfile.TarInfo.frombuf(self._bytes(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise InvalidInput([f"{self._source}: not an archive of a state directory"]) from error
        if member.name != name:
            self._refuse(f"{member.name!r} where {name!r} was expected")
        if member.type != tarfile.REGTYPE or member.size < 0:
            self._refuse(f"{name}: not a plain file")
        return member.size

    def _bytes(self, size: int) -> bytes:
        data = self._some(size)
        if len(data) < size:
            self._refuse("cut short")
        return data

    def _some(self, size: int) -> bytes:
        """Up to `size` bytes; the reader never unpacks more."""
        try:
            return self._packed.read(size)
        except EOFError as error:
            raise InvalidInput([f"{self._source}: cut short"]) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InvalidInput([f"{self._source}: not gzip, or damaged"]) from error

    def _refuse(self, reason: str) -> NoReturn:
        raise InvalidInput([f"{self._source}: {reason}"])


class _Version(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a manifest that is the same in every format."""

    format: int


def _own(fresh: Path, like: Path) -> None:
    """Run by root, give the unpacked files to the owner of the old directory."""
    owner = like.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        for path in (fresh, *fresh.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _swap(fresh: Path, state_dir: Path, before: Path) -> None:
    """Rename `state_dir` to `before` and `fresh` to `state_dir`, in one step where the file system can swap names."""
    fresh.rename(before)
    try:
        if _exchange(before, state_dir):
            return
    except OSError:
        before.rename(fresh)
        raise
    before.rename(fresh)
    state_dir.rename(before)
    try:
        fresh.rename(state_dir)
    except OSError:
        before.rename(state_dir)
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names at once; False where the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))
