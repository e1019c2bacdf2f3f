"""Keeps what lets people in as its files are now: the callers, and the certificate of the server.

Files are read anew when they change. One that is wrong changes nothing: what was read before stays in force, the log,
readiness and a metric say so, and it is tried again until it is right (what it refers to may come later). One that is
wrong at the start lets nobody in until it is right, and keeps no start from controlling batteries.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.api.access.callers import Callers, hash_of
from gateway.config.settings import HttpSettings, TlsSettings
from gateway.domain.access import EVERY_SCOPE, Caller
from gateway.domain.errors import InvalidInput
from gateway.observability.metrics import Sample, counter, gauge
from gateway.observability.parts import Importance, Part

log = logging.getLogger(__name__)

EVERY_S = 2.0

CALLERS = gauge("gateway_access_callers", "Tokens, certificates and issuers that are known.")
RELOADS = counter("gateway_access_reloads", "Times that a file of callers or certificates was read anew.")
STALE = gauge(
    "gateway_access_stale", "Files of callers or certificates that are wrong now (the former ones are in force)."
)

SOURCES = frozenset({"mqtt", "rest", "leap"})
"""Of events whose sender has no name of its own."""

Files = tuple[Path, ...]
Stamp = tuple[int, int, int, int]


@dataclass(slots=True)
class _Watched:
    """What is read, from which files, and as what they stood there before they were read."""

    name: str
    read: Callable[[], Files]
    files: Files = ()
    stamps: list[Stamp | None] | None = None

    def changed(self) -> bool:
        """Whether the files are others than those that were read."""
        return _stamps(self.files) != self.stamps

    def again(self) -> None:
        """Read. Raises what reading raises; then nothing is different."""
        files = self.files
        while True:
            # before reading, so that a change meanwhile is seen later
            stamps, found = _stamps(files), self.read()
            if found == files:
                break
            files = found
        self.files, self.stamps = files, stamps


class Access(Part):
    """The callers and the TLS context of now."""

    service = "access"
    importance = Importance.NEEDED

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._reloads = 0
        self._wrong: dict[str, list[str]] = {}
        self._watched: list[_Watched] = []
        self._certificate: ssl.SSLContext | None = None
        self.callers = Callers(closed=settings.access is not None)
        self.tls = None if settings.tls is None else _bare_context(settings.tls)
        if settings.access is not None:
            self._watch("access", self._read_callers)
        elif settings.token is not None:
            whole = Caller(name="", scopes=EVERY_SCOPE)
            self.callers = Callers(tokens=[(hash_of(settings.token.get_secret_value().encode()), whole)])
        if self.tls is not None:
            self.tls.sni_callback = self._greet
            self._watch("tls", self._read_certificate)

    async def run(self) -> None:
        """Look for changes, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Read anew what has changed."""
        for watched in self._watched:
            name = watched.name
            if name not in self._wrong and not await asyncio.to_thread(watched.changed):
                continue
            try:
                await asyncio.to_thread(watched.again)
            except (InvalidInput, OSError) as error:
                self._note(name, error)
                continue
            self._wrong.pop(name, None)
            self._reloads += 1
            log.warning("who may ask was read anew", extra={"of": name})

    def _watch(self, name: str, read: Callable[[], Files]) -> None:
        """Read now, and whenever it changes."""
        watched = _Watched(name, read)
        self._watched.append(watched)
        try:
            watched.again()
        except (InvalidInput, OSError) as error:
            self._note(name, error)

    def _note(self, name: str, error: InvalidInput | OSError) -> None:
        """A file is wrong; say so once."""
        problems = error.problems if isinstance(error, InvalidInput) else [str(error)]
        if self._wrong.get(name) != problems:
            log.error(
                "a file that lets people in is wrong; the former one stays in force, and without one nobody is let in",
                extra={"of": name, "problems": problems},
            )
        self._wrong[name] = problems

    def _read_callers(self) -> Files:
        # its library takes time to load, and most gateways have one token
        from gateway.config.access import load_access

        path = self._settings.access
        found = load_access(path) if path is not None else None
        if found is None:
            return ()
        self.callers = found.callers
        return found.files

    def _read_certificate(self) -> Files:
        tls = self._settings.tls
        if tls is None:
            return ()
        # a context of its own: what is wrong spoils none in use, and one keeps every authority it ever believed
        self._certificate = server_context(tls)
        return tuple(path for path in (tls.certificate, tls.key_file, tls.client_ca) if path is not None)

    def _greet(self, connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        """A connection has the certificates of when it came, not of when the listener did."""
        if self._certificate is not None:
            connection.context = self._certificate

    def unheard_of(self, sources: Iterable[str]) -> list[str]:
        """Which of these sources of events no caller is, as far as anybody can know."""
        known = self.callers
        if known.statements is not None:
            return []
        names = {caller.name for caller in (*(one for _, one in known.tokens), *known.certificates.values())}
        return sorted(set(sources) - names - SOURCES)

    def samples(self) -> Iterable[Sample]:
        known = self.callers
        yield CALLERS.sample(len(known.tokens) + len(known.certificates) + (known.statements is not None))
        yield RELOADS.sample(self._reloads)
        yield STALE.sample(len(self._wrong))

    def reasons(self) -> list[str]:
        return [
            f"{name}: wrong, nobody is let in: {problems[0]}"
            for name, problems in self._wrong.items()
            if self._shut(name)
        ]

    def warnings(self) -> list[str]:
        return [
            f"{name}: wrong since it changed, the former one is in force: {problems[0]}"
            for name, problems in self._wrong.items()
            if not self._shut(name)
        ]

    def _shut(self, name: str) -> bool:
        """Whether nothing was ever read of it."""
        return self._certificate is None if name == "tls" else self.callers.closed


def _bare_context(tls: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 and newer, without a certificate. Certificates of clients need TLS 1.3 without session tickets: a session
    that goes on asks for no certificate again, and 1.2 has others than tickets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
    return context


def server_context(tls: TlsSettings) -> ssl.SSLContext:
    """The certificate of the server, and whose certificates of clients it believes. Raises OSError (ssl.SSLError is
    one)."""
    context = _bare_context(tls)
    try:
        context.load_cert_chain(tls.certificate, tls.key_file)
    except OSError as error:
        raise OSError(f"{tls.certificate} with {tls.key_file}: {error}") from error
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except OSError as error:
            raise OSError(f"{tls.client_ca}: {error}") from error
    return context


def _stamps(files: Iterable[Path]) -> list[Stamp | None]:
    found: list[Stamp | None] = []
    for path in files:
        with contextlib.suppress(OSError):
            state = path.stat()
            found.append((state.st_ino, state.st_mtime_ns, state.st_ctime_ns, state.st_size))
            continue
        found.append(None)
    return found
