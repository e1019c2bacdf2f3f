"""Who may ask what, and how: callers by their scopes, or loopback; changes only from clients that could not be somebody
else's web page.

A browser lets any page send a "simple" request (a form, `text/plain`, no type at all) to an address inside the user's
network without asking first. It asks first for every other media type, gets no leave here, and names the page's origin
in `Origin`. So what changes something says that it is JSON (or a table, where one is imported), and comes from no other
origin than this server's own.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from gateway.api.access.callers import Callers
from gateway.api.access.refusals import Refusals
from gateway.api.route import CALLER, JSON, RestRoute
from gateway.clock import Clock
from gateway.domain.access import Caller, DoorRefusal, TokenBucket

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
ALLOWANCES_MAX = 10_000
READING = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorway:
    """How requests come: `callers` are those of now; `exposed`: from other machines too, so that nothing but health is
    open to everybody; `refusals` count who was not let in."""

    callers: Callable[[], Callers]
    clock: Clock
    refusals: Refusals
    exposed: bool = False


def guard(door: Doorway, routes: Sequence[RestRoute]) -> Middleware:
    """Refuse a request that is not allowed, as an HTTPException with the reason. Where no callers are configured only
    requests that name loopback are served (no DNS rebinding). No route may take a type of a simple request."""
    ways = {
        (operation.method, operation.path): route
        for route in routes
        for operation in (route.operation, route.operation.former)
        if operation is not None
    }
    allowances = Allowances(door.clock)

    def let_in(request: web.Request, route: RestRoute | None) -> Caller | _Refused:
        callers = door.callers()
        if callers.alone and not _names_loopback(request):
            return _Refused(DoorRefusal.NOT_LOOPBACK)
        shown = request.headers.getall(hdrs.AUTHORIZATION, ("",))
        caller = (
            callers.who(_bytes(shown[0]), _certificate(request)) if len(shown) == 1 else DoorRefusal.UNKNOWN
        )  # fmt: skip
        if not isinstance(caller, Caller):
            return _Refused(caller)
        if (route is None or not route.urgent) and (wait_s := allowances.take(caller)):
            return _Refused(DoorRefusal.TOO_OFTEN, caller, wait_s)
        # What no route takes is answered as that, whatever its body, and whoever asks.
        if route is not None and route.scope is not None and route.scope not in caller.scopes:
            return _Refused(DoorRefusal.SCOPE, caller)
        if request.method not in READING and request.match_info.http_exception is None:
            if not _from_own_pages(request):
                return _Refused(DoorRefusal.OTHER_ORIGIN, caller)
            if not _is_of_kind(request, _kinds(route)):
                return _Refused(DoorRefusal.MEDIA_TYPE, caller)
        return caller

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        # whoever may not see something may not see its head either
        method = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
        route = ways.get((method, _path(request)))
        if route is not None and (route.scope is None or (route.open_here and not door.exposed)):
            return await handler(request)
        found = let_in(request, route)
        if isinstance(found, _Refused):
            name = "" if found.caller is None else found.caller.name
            door.refusals.note(found.reason, name or request.remote or "")
            raise _answer(found, route)
        request[CALLER] = found
        return await handler(request)

    return check


@dataclass(frozen=True, slots=True)
class _Refused:
    """A request that is not let in: of a caller that was recognised, or of nobody (None); `wait_s`: until when."""

    reason: DoorRefusal
    caller: Caller | None = None
    wait_s: int = 0


def _answer(refused: _Refused, route: RestRoute | None) -> web.HTTPException:
    match refused.reason:
        case DoorRefusal.NOT_LOOPBACK:
            return web.HTTPForbidden(reason="without configured callers only loopback is served")
        case DoorRefusal.TOO_OFTEN if refused.caller is not None:
            return web.HTTPTooManyRequests(
                reason=f"more than {refused.caller.requests_per_min} requests a minute",
                headers={hdrs.RETRY_AFTER: str(refused.wait_s)},
            )
        case DoorRefusal.SCOPE if route is not None and route.scope is not None:
            return web.HTTPForbidden(reason=f"the scope {route.scope.value} is required")
        case DoorRefusal.OTHER_ORIGIN:
            return web.HTTPForbidden(reason="pages of other origins change nothing here")
        case DoorRefusal.MEDIA_TYPE:
            return web.HTTPUnsupportedMediaType(reason=f"send {' or '.join(_kinds(route))}")
        case _:
            return web.HTTPUnauthorized(reason="a bearer token is required")


class Allowances:
    """How often callers may still ask. Holders of JWTs are as many as their issuer likes: who has not asked for longest
    is forgotten, which is as if it had not asked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, caller: Caller) -> int:
        """Ask once: 0, or the seconds after which a caller may ask again."""
        if caller.requests_per_min is None:
            return 0
        now_ms = self._clock.mono_ms()
        known = self._known.get(caller.name)
        if known is None or known.per_min != caller.requests_per_min:
            known = self._known[caller.name] = TokenBucket.full(caller.requests_per_min, now_ms)
        self._known.move_to_end(caller.name)
        if len(self._known) > ALLOWANCES_MAX:
            self._known.popitem(last=False)
        return known.take(now_ms)


def _path(request: web.Request) -> str:
    """The path of the route that takes a request, "" = none does."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical


def _certificate(request: web.Request) -> str | None:
    """The common name of the client's certificate, which the server has verified."""
    shown = request.get_extra_info("peercert")
    names = [value for part in (shown or {}).get("subject", ()) for name, value in part if name == "commonName"]
    return names[0] if len(names) == 1 else None


def _bytes(text: str) -> bytes:
    """A header's value as it came: aiohttp keeps bytes that are no UTF-8 as surrogates."""
    return text.encode("utf-8", "surrogateescape")


def _names_loopback(request: web.Request) -> bool:
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    return host in LOOPBACK_HOSTS


def _from_own_pages(request: web.Request) -> bool:
    """Behind a proxy that ends TLS the scheme is not ours to know; host and port are."""
    host = request.host.lower()
    own = {f"http://{host}", f"https://{host}"}
    return all(origin.lower() in own for origin in request.headers.getall(hdrs.ORIGIN, ()))


def _kinds(route: RestRoute | None) -> tuple[str, ...]:
    """The media types that the body of a request may have."""
    return (JSON,) if route is None else route.kinds


def _is_of_kind(request: web.Request, kinds: tuple[str, ...]) -> bool:
    """A DELETE without a body is no simple request; everything else says what it is, with a body or without."""
    if request.method == hdrs.METH_DELETE and not request.body_exists:
        return True
    return request.content_type in kinds
