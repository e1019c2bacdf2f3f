"""Checks where the aggregator posts dispatch.

There is one address per account and level. A standby, or a restored backup, must not take dispatch away from
production: the daemon only looks. The answer of the aggregator holds header values in clear; they are compared here and
never leave.
"""

import asyncio
import hmac
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.domain.errors import GatewayError, Retry, retry_of
from gateway.observability.metrics import Sample, gauge, words
from gateway.observability.parts import Importance, Part
from gateway.signals.leap.settings import PATHS, LeapSignalSettings
from gateway.signals.leap.slots import Level
from gateway.transports.leap.client import LeapClient
from gateway.transports.leap.errors import LeapNotFound

log = logging.getLogger(__name__)

EVERY_S = 900.0
SOON_S = 60.0
URL_MAX = 256


class Registered(StrEnum):
    """How a registration stands. `UNKNOWN`: the aggregator did not answer, or was not asked yet."""

    OURS = "ours"
    NONE = "none"
    OTHER_URL = "other_url"
    OTHER_HEADER = "other_header"
    UNKNOWN = "unknown"


REGISTRATION = gauge(
    "gateway_leap_registration",
    "Whether the aggregator's webhook stands so (1) or not (0).",
    level=("meter", "group"),
    state=words(Registered),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A registration as the aggregator has it, without the values of its headers. `url`: "" = none."""

    level: Level
    state: Registered
    url: str = ""
    wanted: str = ""
    headers: tuple[str, ...] = ()
    detail: str = ""


class LeapRegistration(Part):
    """The registrations of the configured levels."""

    service = "leap-registration"
    component = "leap"
    importance = Importance.SPARE

    def __init__(self, settings: LeapSignalSettings, client: LeapClient) -> None:
        self._settings = settings
        self._client = client
        self._secret = settings.secret.get_secret_value().encode()
        self.newest: dict[Level, Webhook] = {
            level: Webhook(level=level, state=Registered.UNKNOWN, wanted=self.wanted(level))
            for level in settings.levels
        }

    async def close(self) -> None:
        await self._client.close()

    @property
    def levels(self) -> Sequence[Level]:
        """Those that are configured."""
        return self._settings.levels

    def wanted(self, level: Level) -> str:
        """Where the aggregator should post, "" = that is not configured."""
        return "" if self._settings.url is None else self._settings.url + PATHS[level]

    async def run(self) -> None:
        """Look on schedule."""
        while True:
            known = await self.verify()
            unknown = any(one.state is Registered.UNKNOWN for one in known)
            await asyncio.sleep(SOON_S if unknown else EVERY_S)

    async def verify(self) -> list[Webhook]:
        """Ask how each registration stands. An aggregator that does not answer is told in `detail`."""
        return [await self._verified(level) for level in self._settings.levels]

    async def look(self, level: Level) -> Webhook:
        """Ask how a registration stands. Raises GatewayError."""
        return self._noted(self._judged(level, await self._asked(level)))

    async def put(self, level: Level) -> None:
        """Register our address, whatever is there. Raises GatewayError."""
        body = {"url": self.wanted(level), "headers": [{"name": self._settings.header, "value": self._secret.decode()}]}
        await self._client.ask("PUT", _path(level), body=body)
        log.warning("the aggregator's webhook was registered", extra={"level": level, "url": self.wanted(level)})

    async def _verified(self, level: Level) -> Webhook:
        try:
            return await self.look(level)
        except GatewayError as error:
            if retry_of(error) is Retry.NEVER:
                raise
            wanted = self.wanted(level)
            return self._noted(Webhook(level=level, state=Registered.UNKNOWN, wanted=wanted, detail=str(error)))

    async def _asked(self, level: Level) -> Mapping[str, Any] | None:
        """What the aggregator says; None = nothing is registered."""
        try:
            return await self._client.document("GET", _path(level))
        except LeapNotFound:
            return None

    def _judged(self, level: Level, told: Mapping[str, Any] | None) -> Webhook:
        wanted = self.wanted(level)
        url = "" if told is None else str(told.get("url") or "")[:URL_MAX]
        if told is None or not url:
            return Webhook(level=level, state=Registered.NONE, wanted=wanted)
        listed = told.get("headers")
        headers = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
        names = tuple(str(one.get("name"))[:URL_MAX] for one in headers)
        mine = [one.get("value") for one in headers if str(one.get("name")).lower() == self._settings.header]
        same = len(mine) == 1 and hmac.compare_digest(str(mine[0]).encode("utf-8", "surrogateescape"), self._secret)
        state = Registered.OURS if same else Registered.OTHER_HEADER
        state = state if url == wanted or not wanted else Registered.OTHER_URL
        return Webhook(level=level, state=state, url=url, wanted=wanted, headers=names)

    def _noted(self, found: Webhook) -> Webhook:
        before = self.newest.get(found.level)
        if before is None or (before.state, before.url) != (found.state, found.url):
            worse = found.state not in (Registered.OURS, Registered.UNKNOWN)
            log.log(
                logging.ERROR if worse else logging.INFO,
                "the aggregator's webhook stands otherwise than before",
                extra={"level": found.level, "state": found.state.value, "url": found.url, "detail": found.detail},
            )
        self.newest[found.level] = found
        return found

    def samples(self) -> Iterable[Sample]:
        for level, found in self.newest.items():
            yield from REGISTRATION.each({state: state is found.state for state in Registered}, level=level)

    def warnings(self) -> list[str]:
        told = {
            Registered.NONE: "the aggregator has no webhook for {level} dispatch",
            Registered.OTHER_URL: "the aggregator posts {level} dispatch to {url}, not to this gateway",
            Registered.OTHER_HEADER: "the aggregator posts {level} dispatch with another shared header",
        }
        return [
            told[one.state].format(level=one.level, url=one.url) for one in self.newest.values() if one.state in told
        ]


def _path(level: Level) -> str:
    return f"/v2/dispatch/{level}/webhook"
