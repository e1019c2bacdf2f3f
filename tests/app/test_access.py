"""What lets people in while the gateway runs: tokens that are replaced, files that become wrong, certificates."""

import asyncio
import datetime as dt
import ipaddress
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import uvloop
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from gateway.api.access.callers import hash_of
from gateway.api.access.refusals import Refusals
from gateway.api.guard import guard
from gateway.api.route import CALLER, RestRoute
from gateway.app.access import Access
from gateway.app.door import Door
from gateway.app.web import doorway
from gateway.clock import ManualClock
from gateway.config.settings import HttpSettings, TlsSettings
from gateway.domain.access import EVERY_SCOPE, Caller, DoorRefusal
from gateway.schemas.operations import Operation
from tests.scenes.waiting import service

FIRST, SECOND = "the-first-token-of-all", "the-second-token-of-all"


def callers_file(directory: Path, *tokens: str) -> Path:
    path = directory / "access.yaml"
    hashed = ", ".join(f"'sha256:{hash_of(token.encode()).hex()}'" for token in tokens)
    path.write_text(f"callers: {{room: {{scopes: [read], tokens: [{hashed}]}}}}\n", encoding="utf-8")
    return path


def knows(access: Access, token: str) -> bool:
    return isinstance(access.callers.who(b"Bearer " + token.encode()), Caller)


def metric(access: Access, name: str) -> float:
    return next(sample.value for sample in access.samples() if sample.name == name)


async def test_tokens_are_replaced_and_taken_away_without_a_restart(tmp_path: Path) -> None:
    access = Access(HttpSettings(access=callers_file(tmp_path, FIRST)))
    assert (knows(access, FIRST), knows(access, SECOND)) == (True, False)
    callers_file(tmp_path, FIRST, SECOND)
    await access.look()
    assert (knows(access, FIRST), knows(access, SECOND)) == (True, True)
    callers_file(tmp_path, SECOND)
    await access.look()
    assert (knows(access, FIRST), knows(access, SECOND)) == (False, True)
    assert metric(access, "gateway_access_reloads") == 2
    await access.look()
    assert metric(access, "gateway_access_reloads") == 2


async def test_token_in_a_file_of_its_own_is_replaced_without_a_restart(tmp_path: Path) -> None:
    secret = tmp_path / "room"
    secret.touch(mode=0o600)
    secret.write_text(FIRST, encoding="utf-8")
    path = tmp_path / "access.yaml"
    path.write_text(f"callers: {{room: {{scopes: [read], tokens: ['file:{secret}']}}}}", encoding="utf-8")
    access = Access(HttpSettings(access=path))
    secret.write_text(SECOND, encoding="utf-8")
    await access.look()
    assert (knows(access, FIRST), knows(access, SECOND)) == (False, True)


async def test_file_that_becomes_wrong_changes_nothing_and_is_told_until_it_is_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = callers_file(tmp_path, FIRST)
    access = Access(HttpSettings(access=path))
    for text in ("callers: {}", "{", f"callers: {{room: {{scopes: [read], tokens: ['{SECOND}']}}}}"):
        path.write_text(text, encoding="utf-8")
        await access.look()
        assert knows(access, FIRST)
        assert len(access.warnings()) == 1
        assert metric(access, "gateway_access_stale") == 1
    path.unlink()
    await access.look()
    assert knows(access, FIRST)
    callers_file(tmp_path, SECOND)
    await access.look()
    assert (knows(access, SECOND), access.warnings()) == (True, [])
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 4, "once each"
    assert SECOND not in caplog.text


async def test_what_a_wrong_file_refers_to_may_come_later(tmp_path: Path) -> None:
    path = callers_file(tmp_path, FIRST)
    access = Access(HttpSettings(access=path))
    secret = tmp_path / "room"
    path.write_text(f"callers: {{room: {{scopes: [read], tokens: ['file:{secret}']}}}}", encoding="utf-8")
    await access.look()
    secret.write_text(SECOND, encoding="utf-8")
    secret.chmod(0o644)
    await access.look()
    assert "can be read by others" in access.warnings()[0]
    assert knows(access, FIRST)
    secret.chmod(0o600)
    await access.look()
    assert (knows(access, FIRST), knows(access, SECOND), access.warnings()) == (False, True, [])


async def test_file_that_changes_while_it_is_read_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = callers_file(tmp_path, FIRST)
    access = Access(HttpSettings(access=path))
    callers_file(tmp_path, FIRST, SECOND)
    read = Path.read_text

    def overtaken(self: Path, *how: str, **named: str) -> str:
        text = read(self, *how, **named)
        callers_file(tmp_path, SECOND)
        return text

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", overtaken)
        await access.look()
    await access.look()
    assert (knows(access, FIRST), knows(access, SECOND)) == (False, True)


async def test_file_that_is_put_in_place_with_the_times_and_the_size_of_the_former_one_is_read(tmp_path: Path) -> None:
    """As some tools do that keep directories alike."""
    path = callers_file(tmp_path, FIRST)
    access = Access(HttpSettings(access=path))
    before = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("room", "desk"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    await access.look()
    caller = access.callers.who(b"Bearer " + FIRST.encode())
    assert isinstance(caller, Caller)
    assert caller.name == "desk"


async def test_directory_that_is_exchanged_by_its_link_is_read_anew(tmp_path: Path) -> None:
    """Files, keys and all, as orchestrators mount secrets."""
    for name, token in (("one", FIRST), ("two", SECOND)):
        (tmp_path / name).mkdir()
        callers_file(tmp_path / name, token)
    link, mounted = tmp_path / "data", tmp_path / "access.yaml"
    link.symlink_to("one")
    mounted.symlink_to("data/access.yaml")
    access = Access(HttpSettings(access=mounted))
    fresh = tmp_path / "fresh"
    fresh.symlink_to("two")
    fresh.rename(link)
    await access.look()
    assert (knows(access, FIRST), knows(access, SECOND)) == (False, True)


async def test_start_with_a_wrong_file_lets_nobody_in_until_it_is_right(tmp_path: Path) -> None:
    """A crash after an edit that went wrong must not leave a fleet without its gateway."""
    path = tmp_path / "access.yaml"
    path.write_text("callers: {}", encoding="utf-8")
    access = Access(HttpSettings(access=path))
    assert isinstance(access.callers.who(b""), DoorRefusal)
    assert not access.callers.alone, "not even this machine"
    assert (len(access.reasons()), access.warnings(), metric(access, "gateway_access_stale")) == (1, [], 1)
    callers_file(tmp_path, FIRST)
    await access.look()
    assert (knows(access, FIRST), access.reasons(), access.warnings()) == (True, [], [])


async def _late(directory: Path) -> None:
    authority = Authority(directory, "authority")
    tls = TlsSettings(certificate=directory / "server.pem", key_file=directory / "server.key", client_ca=authority.file)
    access = Access(HttpSettings(access=callers_file(directory, FIRST), tls=tls))
    assert "server.pem" in access.reasons()[0]
    async with server(access) as port:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await asked(port, authority, token=FIRST)
        authority.issue("gateway", "server")
        await access.look()
        assert await asked(port, authority, token=FIRST) == (200, "room")
        assert access.reasons() == []


def test_certificate_that_comes_after_the_start_is_served(tmp_path: Path) -> None:
    uvloop.run(_late(tmp_path))


def test_one_token_is_a_caller_who_may_do_everything() -> None:
    caller = Access(HttpSettings(token=SecretStr(FIRST))).callers.who(b"Bearer " + FIRST.encode())
    assert isinstance(caller, Caller)
    assert (caller.name, caller.scopes) == ("", EVERY_SCOPE)


def test_bounds_of_a_source_that_nobody_is_are_told(tmp_path: Path) -> None:
    access = Access(HttpSettings(access=callers_file(tmp_path, FIRST)))
    assert access.unheard_of(["room", "rooms", "mqtt", "rest"]) == ["rooms"]


# -- TLS -----------------------------------------------------------------------------------------------------


@dataclass
class Authority:
    """Signs certificates of servers and of clients."""

    directory: Path
    name: str

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        made = self._builder(self._subject, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file = self.directory / f"{self.name}.pem"
        self.file.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
        )  # fmt: skip

    def issue(self, common_name: str, stem: str) -> TlsSettings:
        """A certificate for 127.0.0.1 under this name, in `stem`.pem and `stem`.key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        made = self._builder(subject, key).add_extension(address, critical=False)
        certificate, key_file = self.directory / f"{stem}.pem", self.directory / f"{stem}.key"
        pem = serialization.Encoding.PEM
        certificate.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(pem))
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key_file.write_bytes(key.private_bytes(pem, form, plain))
        return TlsSettings(certificate=certificate, key_file=key_file)


class Hello:
    """One route that says who asked."""

    async def hello(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=request[CALLER].name)

    ROUTES = (RestRoute(operation=Operation("GET", "/"), handler=hello, summary="", answers={200: None}),)


@asynccontextmanager
async def server(access: Access) -> AsyncIterator[int]:
    """The port of a server with such a door."""
    refusals = Refusals(ManualClock())
    checked = guard(doorway(access, ManualClock(), "127.0.0.1", refusals), Hello.ROUTES)
    app = web.Application(middlewares=[checked])
    app.add_routes([web.get("/", Hello().hello)])
    async with Door(64, refusals) as door, service(door.run):
        yield await door.listen(web.AppRunner(app, shutdown_timeout=0.1), "127.0.0.1", 0, tls=access.tls)


async def asked(port: int, believes: Authority, shows: TlsSettings | None = None, token: str = "") -> tuple[int, str]:
    """Status and text of a request over a connection of its own."""
    context = ssl.create_default_context(cafile=str(believes.file))
    if shows is not None:
        context.load_cert_chain(shows.certificate, shows.key_file)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.get(f"https://127.0.0.1:{port}/", headers=headers) as reply,
    ):
        return reply.status, await reply.text()


async def _story(directory: Path) -> None:
    authority, stranger = Authority(directory, "authority"), Authority(directory, "stranger")
    path = callers_file(directory, FIRST)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("}}\n", "}, desk: {scopes: [read], certificate: desk}}\n"), encoding="utf-8")
    tls = authority.issue("gateway", "server").model_copy(update={"client_ca": authority.file})
    access = Access(HttpSettings(access=path, tls=tls))
    async with server(access) as port:
        assert await asked(port, authority, token=FIRST) == (200, "room")
        assert (await asked(port, authority))[0] == 401
        assert await asked(port, authority, authority.issue("desk", "desk")) == (200, "desk")
        assert (await asked(port, authority, authority.issue("nobody", "nobody")))[0] == 401
        with pytest.raises((aiohttp.ClientError, OSError)):
            await asked(port, authority, stranger.issue("desk", "false"))
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await asked(port, stranger, token=FIRST)
        # a new certificate of another authority, while the server runs
        stranger.issue("gateway", "server")
        await access.look()
        assert await asked(port, stranger, token=FIRST) == (200, "room")
        # a key that does not belong to the certificate changes nothing
        tls.key_file.write_bytes(authority.issue("x", "x").key_file.read_bytes())
        await access.look()
        assert await asked(port, stranger, token=FIRST) == (200, "room")
        assert len(access.warnings()) == 1
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://127.0.0.1:{port}/", headers={"Authorization": f"Bearer {FIRST}"})


def _resumed(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[bytes, ssl.SSLSession | None]:
    """The answer to a request over a connection that goes on with a session, and the session then; neither where the
    server ends the connection."""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := connection.recv(4096):
            answer += part
        if answer:
            return answer, connection.session
    return b"", None


async def _exchange(directory: Path) -> None:
    former, present = Authority(directory, "former"), Authority(directory, "present")
    path = callers_file(directory, FIRST)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("}}\n", "}, desk: {scopes: [read], certificate: desk}}\n"), encoding="utf-8")
    believed = directory / "clients.pem"
    believed.write_bytes(former.file.read_bytes())
    tls = present.issue("gateway", "server").model_copy(update={"client_ca": believed})
    access = Access(HttpSettings(access=path, tls=tls))
    old, new = former.issue("desk", "old"), present.issue("desk", "new")
    async with server(access) as port:
        assert await asked(port, present, old) == (200, "desk")
        context = ssl.create_default_context(cafile=str(present.file))
        context.load_cert_chain(old.certificate, old.key_file)
        answer, session = await asyncio.to_thread(_resumed, port, context)
        assert answer.endswith(b"desk")
        believed.write_bytes(present.file.read_bytes())
        await access.look()
        assert await asked(port, present, new) == (200, "desk")
        assert await asyncio.to_thread(_resumed, port, context, session) == (b"", None)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert await asyncio.to_thread(_resumed, port, context) == (b"", None)
        with pytest.raises((aiohttp.ClientError, OSError)):
            await asked(port, present, old)


def test_authority_of_clients_that_is_taken_away_is_believed_no_more(tmp_path: Path) -> None:
    """Nor does a session of before go on."""
    uvloop.run(_exchange(tmp_path))


def test_server_speaks_tls_knows_clients_by_certificate_and_follows_its_own(tmp_path: Path) -> None:
    """On the loop of the daemon."""
    uvloop.run(_story(tmp_path))
