"""TLS against mosquitto with certificates of a throw-away authority."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.domain.errors import PeerRefused
from gateway.transports.mqtt.connection import PublishOutcome, tls_context
from tests.scenes.brokers import mosquitto_process
from tests.scenes.mqtt_peers import make_connection, make_settings, running, send, until

# mosquitto is a process.
pytestmark = pytest.mark.real_time


class Authority:
    """A certificate authority in a directory; ends with it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = directory / "ca.pem"
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=throw-away", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", "ca.key", "-out", "ca.pem",
        )  # fmt: skip

    def issue(self, name: str, alternative: str) -> tuple[Path, Path]:
        """Certificate and key for `alternative`, as in `DNS:localhost` or `IP:127.0.0.1`."""
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        extensions = self.directory / f"{name}.ext"
        lines = [f"subjectAltName={alternative}", "authorityKeyIdentifier=keyid", "subjectKeyIdentifier=hash"]
        extensions.write_text("\n".join([*lines, ""]), encoding="utf-8")
        self._openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", extensions.name, "-out", f"{name}.pem",
        )  # fmt: skip
        return self.directory / f"{name}.pem", self.directory / f"{name}.key"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    return Authority(tmp_path_factory.mktemp("ca"))


def listener(authority: Authority, alternative: str, *, clients: bool = False) -> list[str]:
    certificate, key = authority.issue("server", alternative)
    lines = [f"cafile {authority.ca}", f"certfile {certificate}", f"keyfile {key}"]
    return [*lines, "require_certificate true", "use_identity_as_username true"] if clients else [
        *lines, "allow_anonymous true",
    ]  # fmt: skip


async def test_tls_known_authority_and_right_host_connects(authority: Authority, tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path, listener=listener(authority, "IP:127.0.0.1")) as broker:
        settings = make_settings(f"mqtts://127.0.0.1:{broker.port}", ca_file=authority.ca)
        async with running(make_connection(settings, "t")) as connection:
            assert await send(connection, "t", *[b"x" * 1000] * 1000) == [PublishOutcome.ACKED] * 1000


async def test_tls_certificate_of_another_host_is_refused(authority: Authority, tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path, listener=listener(authority, "DNS:elsewhere.example")) as broker:
        settings = make_settings(f"mqtts://127.0.0.1:{broker.port}", ca_file=authority.ca)
        async with running(make_connection(settings), connected=False) as connection:
            await until(lambda: connection.stats.lost["refused"] >= 1)
            assert connection.stats.connects == 0


async def test_tls_unknown_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    async with mosquitto_process(tmp_path, listener=listener(authority, "IP:127.0.0.1")) as broker:
        settings = make_settings(f"mqtts://127.0.0.1:{broker.port}")
        async with running(make_connection(settings), connected=False) as connection:
            await until(lambda: connection.stats.lost["refused"] >= 1)
            assert connection.stats.connects == 0


async def test_tls_client_certificate_lets_in(authority: Authority, tmp_path: Path) -> None:
    lines = listener(authority, "IP:127.0.0.1", clients=True)
    certificate, key = authority.issue("gateway", "DNS:gateway")
    async with mosquitto_process(tmp_path, listener=lines) as broker:
        url = f"mqtts://127.0.0.1:{broker.port}"
        known = make_settings(url, "known", ca_file=authority.ca, cert_file=certificate, key_file=key)
        async with running(make_connection(known)) as connection:
            assert connection.connected
        unknown = make_connection(make_settings(url, "unknown", ca_file=authority.ca))
        async with running(unknown, connected=False):
            await until(lambda: sum(unknown.stats.lost.values()) >= 1)
            assert unknown.stats.connects == 0


async def test_tls_key_that_cannot_be_read_once_is_read_again(authority: Authority, tmp_path: Path) -> None:
    lines = listener(authority, "IP:127.0.0.1", clients=True)
    certificate, key = authority.issue("gateway", "DNS:gateway")
    away = key.rename(key.with_suffix(".away"))
    async with mosquitto_process(tmp_path, listener=lines) as broker:
        settings = make_settings(
            f"mqtts://127.0.0.1:{broker.port}", ca_file=authority.ca, cert_file=certificate, key_file=key
        )
        async with running(make_connection(settings), connected=False) as connection:
            await until(lambda: connection.generation >= 2)
            assert connection.stats.connects == 0
            away.rename(key)
            await connection.wait_connected()


def test_tls_files_missing_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PeerRefused, match="TLS files"):
        tls_context(make_settings("mqtts://localhost", ca_file=tmp_path / "none.pem"))
