"""The aggregator's HTTP interface: one key, one host, and errors by their meaning."""

from collections.abc import Mapping

import aiohttp

from gateway.ports.sinks import Keep, Stop
from gateway.sinks.web import REFUSED_RETRY_S, ask
from gateway.transports.web import WebAnswer, open_session, words

JSON, CSV = "application/json", "text/csv"


class LeapApi:
    """Asks the aggregator. Create it inside a running loop; end it with `close`."""

    def __init__(self, *, url: str, key: str, timeout_s: float) -> None:
        self._url = url
        self._key = key
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        kind: str = "",
        params: Mapping[str, str] | None = None,
        most_bytes: int = 4 << 20,
    ) -> WebAnswer | Keep:
        """The answer, whatever its status."""
        if self._session is None:
            self._session = open_session(self._timeout_s)
        headers = {"Authorization": f"Bearer {self._key}", "Accept": JSON}
        if body is not None:
            headers["Content-Type"] = kind
        return await ask(
            self._session, method, self._url + path, headers=headers, data=body, params=params, most_bytes=most_bytes
        )


def meaning(reply: WebAnswer) -> Keep | Stop:
    """What an answer other than 2xx means. The account or the request is wrong, and so it will be the next time: Stop.
    The aggregator is ill, busy or asks for less at once: Keep."""
    reason = f"http_{reply.status}"
    if reply.status in (401, 403):
        return Stop(reason=reason, detail=words(reply.body), retry_s=REFUSED_RETRY_S)
    if 400 <= reply.status < 500 and reply.status not in (408, 413, 425, 429):
        return Stop(reason=reason, detail=words(reply.body))
    return Keep(reason=reason, after_s=reply.after_s)
