"""Registrations as rows of the outbox: where the aggregator posts the dispatch of a level, and where it is to.

The subject of a row is the level. `url` is where dispatch is posted, `shared_header` whether it carries our secret
(`ours`, `another`), `replaces` the address that may lose its dispatch: one that is there already is taken away by a row
that names it, and by no other, also where it came there after the row was proposed.
"""

from collections.abc import Mapping, Sequence

from gateway.domain.errors import InvalidInput
from gateway.domain.programs.outbox import Content, OutboxRow, WriteKind, WriteState
from gateway.ports.outbox import Written
from gateway.signals.leap.registration import URL_MAX, LeapRegistration, Registered, Webhook
from gateway.signals.leap.slots import Level
from gateway.transports.leap.errors import LeapRefused

URL, HEADER, REPLACES = "url", "shared_header", "replaces"
OURS, ANOTHER = "ours", "another"
NEEDED, MEMBERS = frozenset({URL, HEADER}), frozenset({URL, HEADER, REPLACES})
NO_URL = "signals.leap.url: missing; it says where the aggregator reaches this gateway"


class WebhookRows:
    """Implements `gateway.ports.OutboxPeer` for registrations."""

    def __init__(self, registration: LeapRegistration) -> None:
        self._registration = registration

    async def content(self, level: Level, replace: str | None) -> Content:
        """What a row says that registers this gateway. `replace`: the address that is there now, if there is another.
        Raises InvalidInput and GatewayError."""
        wanted = self._wanted(level)
        now = await self._registration.look(level)
        elsewhere = now.url not in ("", wanted)
        if elsewhere and replace != now.url:
            raise InvalidInput(
                [f"replace: the aggregator posts to {now.url} now; name it to take dispatch away from there"]
            )
        if replace is not None and not elsewhere:
            raise InvalidInput([f"replace: the aggregator posts to {now.url or 'nowhere'}, not to {replace[:URL_MAX]}"])
        return {URL: wanted, HEADER: OURS} | ({REPLACES: now.url} if elsewhere else {})

    def faults(self, kind: WriteKind, subject: str, after: Content, now_ms: int) -> list[str]:
        """What is wrong with a change that is proposed."""
        level = self._level(subject)
        if level is None:
            return [f"{subject[:64]!r}: not among signals.leap.levels"]
        found = [f"{subject}: {name}: required" for name in sorted(NEEDED - after.keys())]
        found += [f"{subject}: {name[:64]}: unknown" for name in sorted(after.keys() - MEMBERS)]
        wanted = self._registration.wanted(level)
        if not wanted:
            found.append(NO_URL)
        elif after.get(URL) != wanted:
            found.append(f"{subject}: url: this gateway is reached at {wanted}")
        if after.get(HEADER) != OURS:
            found.append(f"{subject}: shared_header: {OURS}")
        return found

    async def read(self, kind: WriteKind, rows: Sequence[OutboxRow]) -> Mapping[int, Content | None]:
        """How registrations stand; what a row may replace is no part of one."""
        stands = {subject: await self._look(subject) for subject in sorted({row.subject for row in rows})}
        found: dict[int, Content | None] = {}
        for row in rows:
            now = stands[row.subject]
            allowed = {name: value for name, value in row.after.items() if name == REPLACES}
            found[row.number] = None if now is None or not now.url else _content(now) | allowed
        return found

    async def write(self, kind: WriteKind, rows: Sequence[OutboxRow]) -> Mapping[int, Written]:
        """Register, each level after another look at what would be replaced."""
        return {row.number: await self._write(row) for row in rows}

    async def look(self, rows: Sequence[OutboxRow]) -> Mapping[int, Written]:
        """Nothing: the aggregator does not work on a registration."""
        return {}

    async def _write(self, row: OutboxRow) -> Written:
        level = self._level(row.subject)
        if level is None or row.after[URL] != self._registration.wanted(level):
            return Written(state=WriteState.REFUSED, detail="this gateway is configured otherwise now")
        now = await self._registration.look(level)
        if now.state is Registered.OURS:
            return Written(state=WriteState.DONE)
        if now.url not in ("", row.after[URL], row.after.get(REPLACES)):
            return Written(state=WriteState.REFUSED, detail=f"the aggregator posts to {now.url} now")
        try:
            await self._registration.put(level)
        except LeapRefused as error:
            if error.status in (401, 403):
                raise
            return Written(state=WriteState.REFUSED, detail=f"HTTP {error.status}")
        return Written(state=WriteState.DONE)

    async def _look(self, subject: str) -> Webhook | None:
        level = self._level(subject)
        return None if level is None else await self._registration.look(level)

    def _level(self, subject: str) -> Level | None:
        return next((level for level in self._registration.levels if level == subject), None)

    def _wanted(self, level: Level) -> str:
        if self._level(level) is None:
            raise InvalidInput([f"level: {level} is not among signals.leap.levels"])
        wanted = self._registration.wanted(level)
        if not wanted:
            raise InvalidInput([NO_URL])
        return wanted


def _content(now: Webhook) -> dict[str, str]:
    """What is registered; of another address nobody looks at the header."""
    headers = {Registered.OURS: {HEADER: OURS}, Registered.OTHER_HEADER: {HEADER: ANOTHER}}
    return {URL: now.url} | headers.get(now.state, {})
