"""The command line's side of REST: one request, one JSON answer, faults in words."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 60


class DaemonError(Exception):
    """The daemon cannot be reached or said no; `problems` in words."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Daemon:
    """A running gateway at `url` (http or https)."""

    def __init__(self, url: str, *, token: str | None) -> None:
        self._url = url
        self._token = token

    def ask(self, method: str, path: str, *, body: bytes | None = None, content_type: str | None = None) -> Any:
        """The JSON answer. Raises DaemonError; a rejected event (409) is an error with its reason."""
        try:
            parts = urlsplit(self._url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise DaemonError([f"{self._url}: {error}"]) from error
        if parts.scheme not in ("http", "https") or not host:
            raise DaemonError([f"{self._url}: an address begins with http:// or https:// and names a host"])
        make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Accept": "application/json"}
        if content_type is not None:
            headers["Content-Type"] = content_type
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connection = make(host, port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body=body, headers=headers)
            reply = connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise DaemonError([f"no gateway answers at {self._url}: {error}"]) from error
        finally:
            connection.close()
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise DaemonError([f"{self._url} does not speak JSON (status {reply.status})"]) from error
        if not isinstance(answer, dict):
            raise DaemonError([f"{self._url} does not answer as a gateway (status {reply.status})"])
        if reply.status >= 400:
            problems = answer.get("problems") or []
            headline = answer.get("error") or f"{answer.get('outcome')}: {answer.get('reason')}"
            raise DaemonError([headline, *problems])
        return answer
