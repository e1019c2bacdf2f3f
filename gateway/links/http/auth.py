"""Authenticates requests: a header, Basic, Digest, or a login whose token and cookies all requests share."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp

from gateway.clock import Clock
from gateway.domain.errors import GatewayError, InvalidInput, LinkDown, PeerRefused, Retry
from gateway.profiles.language.transport import Auth

REFUSED_REST_MS = 60_000
COOKIES_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The token and cookies of a login."""

    token: str = field(repr=False)
    cookies: dict[str, str] = field(default_factory=dict, repr=False)


Login = Callable[[], Awaitable[Grant]]


class Credentials:
    """One account at one host. Requests that find the login expired at once cause one new login and share its outcome.

    A refused login is not tried again for `REFUSED_REST_MS`: makers lock accounts.
    """

    def __init__(self, auth: Auth, *, username: str, secret: str, clock: Clock) -> None:
        self.auth = auth
        self.username = username
        self.secret = secret
        self.generation = 0
        self._clock = clock
        self._grant: Grant | None = None
        self._flight: asyncio.Future[None] | None = None
        self._refused: tuple[int, str] | None = None
        self._fixed: dict[str, str] = {}
        self.middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = ()
        self._prepare()

    def _prepare(self) -> None:
        auth = self.auth
        if any(not character.isprintable() for character in self.username + self.secret):
            raise InvalidInput(["secret: must not contain control characters"])
        if auth.kind in ("basic", "digest") and ":" in self.username:
            raise InvalidInput(["username: must not contain a colon"])
        if auth.kind == "header" and auth.name is not None:
            self._fixed = {auth.name: self.secret}
        elif auth.kind == "basic":
            self._fixed = {"Authorization": aiohttp.encode_basic_auth(self.username, self.secret, encoding="utf-8")}
        elif auth.kind == "digest":
            self.middlewares = (aiohttp.DigestAuthMiddleware(self.username, self.secret),)

    @property
    def renewable(self) -> bool:
        """Whether a refusal may only mean that the login has expired."""
        return self.auth.kind == "login"

    @property
    def wanting(self) -> bool:
        """Whether a login must come before any request."""
        return self.renewable and self._grant is None

    def headers(self) -> dict[str, str]:
        """Headers that authenticate a request."""
        if self._grant is None:
            return self._fixed
        out = {"Authorization": f"Bearer {self._grant.token}"}
        if self._grant.cookies:
            out["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._grant.cookies.items())
        return out

    async def ready(self, login: Login) -> int:
        """Log in if necessary; returns the generation of the credentials in `headers`. Raises what the login raises."""
        if self.wanting:
            await self.renew(self.generation, login)
        return self.generation

    async def renew(self, seen: int, login: Login) -> None:
        """Log in unless the credentials are newer than generation `seen`. Raises what the login raises."""
        if self.generation != seen and self._grant is not None:
            return
        if self._flight is not None:
            await asyncio.shield(self._flight)
            return
        if self._refused is not None and self._clock.mono_ms() - self._refused[0] < REFUSED_REST_MS:
            raise PeerRefused(self._refused[1])
        flight: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flight.add_done_callback(_seen)
        self._flight = flight
        self._grant = None
        try:
            self._grant = await login()
            self.generation += 1
            self._refused = None
            flight.set_result(None)
        except GatewayError as error:
            if error.retry is Retry.AFTER_CHANGE:
                self._refused = (self._clock.mono_ms(), str(error))
            flight.set_exception(error)
            raise
        finally:
            self._flight = None
            if not flight.done():
                flight.set_exception(LinkDown("the login was given up"))


def _seen(future: asyncio.Future[None]) -> None:
    """Mark the exception as retrieved: perhaps nobody waits for it, and that is no fault."""
    if not future.cancelled():
        future.exception()
