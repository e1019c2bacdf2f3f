"""The command line's side of REST: one request, one JSON answer, errors as text."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.addresses import is_loopback

TIMEOUT_S = 60
CHUNK_BYTES = 1 << 20


class DaemonError(Exception):
    """The daemon cannot be reached or refused the request; `problems` says why."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Daemon:
    """A running gateway at `url` (http or https)."""

    def __init__(self, url: str, *, token: str | None) -> None:
        self._url = url
        self._token = token

    @property
    def open_to_all(self) -> bool:
        """Whether what is sent can be read on the way: plain http to another machine."""
        try:
            parts = urlsplit(self._url)
        except ValueError:
            return False
        return parts.scheme == "http" and not is_loopback(parts.hostname or "")

    def ask(self, method: str, path: str, *, body: bytes | None = None, content_type: str | None = None) -> Any:
        """Send a request and return the JSON answer. A body is JSON unless `content_type` says otherwise. Raises
        DaemonError, also for a rejected event (409), with its reason."""
        with self._reply(method, path, body, content_type) as reply:
            return _checked(self._url, reply.status, self._read(reply, None))

    def fetch(self, path: str, file: Path) -> None:
        """Write an answer of any length to `file`. Raises DaemonError, also for an answer that was cut short, and
        OSError for the file."""
        with self._reply("GET", path, None, None) as reply, file.open("wb") as target:
            if reply.status != HTTPStatus.OK:
                _checked(self._url, reply.status, self._read(reply, None))
            while part := self._read(reply, CHUNK_BYTES):
                target.write(part)
            if reply.length:
                raise DaemonError([f"the answer of {self._url} was cut short: {reply.length} bytes are missing"])

    def _read(self, reply: http.client.HTTPResponse, most: int | None) -> bytes:
        try:
            return reply.read(most)
        except (OSError, http.client.HTTPException) as error:
            raise DaemonError([f"the answer of {self._url} was cut short: {error!r}"]) from error

    @contextmanager
    def _reply(
        self, method: str, path: str, body: bytes | None, content_type: str | None
    ) -> Iterator[http.client.HTTPResponse]:
        try:
            parts = urlsplit(self._url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise DaemonError([f"{self._url}: {error}"]) from error
        if parts.scheme not in ("http", "https") or not host:
            raise DaemonError([f"{self._url}: an address begins with http:// or https:// and names a host"])
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers: dict[str, str | bytes] = {"Accept": "application/json"}
        if method != "GET":
            headers["Content-Type"] = content_type or "application/json"
        if self._token:
            # as bytes: the library would take a text for Latin-1
            headers["Authorization"] = f"Bearer {self._token}".encode("utf-8", "surrogateescape")
        connection = make(host, port, timeout=TIMEOUT_S)
        try:
            try:
                connection.request(method, path, body=body, headers=headers)
                reply = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise DaemonError([f"no gateway answers at {self._url}: {error}"]) from error
            with reply:
                yield reply
        finally:
            connection.close()


def _checked(url: str, status: int, text: bytes) -> Any:
    """The JSON of a good answer; raises DaemonError with the reasons of a bad one."""
    try:
        answer = json.loads(text)
    except ValueError as error:
        raise DaemonError([f"{url} does not speak JSON (status {status})"]) from error
    if not isinstance(answer, dict):
        raise DaemonError([f"{url} does not answer as a gateway (status {status})"])
    if status >= 400:
        problems = answer.get("problems") or answer.get("warnings") or []
        headline = answer.get("error") or f"{answer.get('outcome')}: {answer.get('reason')}"
        raise DaemonError([headline, *problems])
    return answer
