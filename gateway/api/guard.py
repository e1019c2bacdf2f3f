"""Who may ask what, and how: callers by their scopes, or loopback; changes only from clients that could not be somebody
else's web page.

A browser lets any page send a "simple" request (a form, `text/plain`, no type at all) to an address inside the user's
network without asking first. It asks first for every other media type, gets no leave here, and names the page's origin
in `Origin`. So what changes something says that it is JSON (or a table, where one is imported), and comes from no other
origin than this server's own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from gateway.api.access.callers import Callers
from gateway.api.route import CALLER, JSON, RestRoute
from gateway.clock import Clock
from gateway.domain.access import Caller, TokenBucket

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
READING = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorway:
    """How requests come: `callers` are those of now; `exposed`: from other machines too, so that nothing but health is
    open to everybody."""

    callers: Callable[[], Callers]
    clock: Clock
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
    allowances: dict[str, TokenBucket] = {}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        # whoever may not see something may not see its head either
        method = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
        route = ways.get((method, _path(request)))
        if route is not None and (route.scope is None or (route.open_here and not door.exposed)):
            return await handler(request)
        callers = door.callers()
        if callers.alone:
            _only_loopback(request)
        shown = request.headers.getall(hdrs.AUTHORIZATION, ("",))
        caller = callers.who(_bytes(shown[0]), _certificate(request)) if len(shown) == 1 else None
        if caller is None:
            raise web.HTTPUnauthorized(reason="a bearer token is required")
        if route is None or not route.urgent:
            _only_so_often(caller, allowances, door.clock)
        # What no route takes is answered as that, whatever its body, and whoever asks.
        if route is not None and route.scope is not None and route.scope not in caller.scopes:
            raise web.HTTPForbidden(reason=f"the scope {route.scope.value} is required")
        if request.method not in READING and request.match_info.http_exception is None:
            _only_own_pages(request)
            _only_kinds(request, (JSON,) if route is None else route.kinds)
        request[CALLER] = caller
        return await handler(request)

    return check


def _path(request: web.Request) -> str:
    """The path of the route that takes a request, "" = none does."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical


def _certificate(request: web.Request) -> str | None:
    """The common name of the client's certificate, which the server has verified."""
    shown = request.get_extra_info("peercert")
    names = [value for part in (shown or {}).get("subject", ()) for name, value in part if name == "commonName"]
    return names[0] if len(names) == 1 else None


def _only_so_often(caller: Caller, allowances: dict[str, TokenBucket], clock: Clock) -> None:
    if caller.requests_per_min is None:
        return
    now_ms = clock.mono_ms()
    known = allowances.get(caller.name)
    if known is None or known.per_min != caller.requests_per_min:
        known = allowances[caller.name] = TokenBucket.full(caller.requests_per_min, now_ms)
    wait_s = known.take(now_ms)
    if wait_s:
        raise web.HTTPTooManyRequests(
            reason=f"more than {known.per_min} requests a minute", headers={hdrs.RETRY_AFTER: str(wait_s)}
        )


def _bytes(text: str) -> bytes:
    """A header's value as it came: aiohttp keeps bytes that are no UTF-8 as surrogates."""
    return text.encode("utf-8", "surrogateescape")


def _only_loopback(request: web.Request) -> None:
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if host not in LOOPBACK_HOSTS:
        raise web.HTTPForbidden(reason="without configured callers only loopback is served")


def _only_own_pages(request: web.Request) -> None:
    """Behind a proxy that ends TLS the scheme is not ours to know; host and port are."""
    host = request.host.lower()
    own = {f"http://{host}", f"https://{host}"}
    if any(origin.lower() not in own for origin in request.headers.getall(hdrs.ORIGIN, ())):
        raise web.HTTPForbidden(reason="pages of other origins change nothing here")


def _only_kinds(request: web.Request, kinds: tuple[str, ...]) -> None:
    """A DELETE without a body is no simple request; everything else says what it is, with a body or without."""
    if request.method == hdrs.METH_DELETE and not request.body_exists:
        return
    if request.content_type not in kinds:
        raise web.HTTPUnsupportedMediaType(reason=f"send {' or '.join(kinds)}")
