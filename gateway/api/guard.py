"""Who may ask, and how: a token or loopback; changes only from clients that could not be somebody else's web page.

A browser lets any page send a "simple" request (a form, `text/plain`, no type at all) to an address inside the user's
network without asking first. It asks first for every other media type, gets no leave here, and names the page's origin
in `Origin`. So what changes something says that it is JSON (or a table, where one is imported), and comes from no other
origin than this server's own.
"""

import hmac
from collections.abc import Mapping, Sequence

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware
from pydantic import SecretStr

from gateway.api.route import JSON, RestRoute

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})
READING = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})


def guard(token: SecretStr | None, routes: Sequence[RestRoute]) -> Middleware:
    """Refuse a request that is not allowed, as an HTTPException with the reason. Without a token only requests that
    name loopback are served (no DNS rebinding). No route may take a type of a simple request."""
    open_paths = frozenset(route.operation.path for route in routes if not route.token)
    kinds = {route.operation.path: route.kinds for route in routes if route.operation.method not in READING}
    wanted = None if token is None else _bytes(f"Bearer {token.get_secret_value()}")

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in open_paths:
            return await handler(request)
        if wanted is None:
            _only_loopback(request)
        elif not hmac.compare_digest(_bytes(request.headers.get(hdrs.AUTHORIZATION, "")), wanted):
            raise web.HTTPUnauthorized(reason="a bearer token is required")
        # What no route takes is answered as that, whatever its body.
        if request.method not in READING and request.match_info.http_exception is None:
            _only_own_pages(request)
            _only_kinds(request, kinds)
        return await handler(request)

    return check


def _bytes(text: str) -> bytes:
    """A header's value as it came: aiohttp keeps bytes that are no UTF-8 as surrogates."""
    return text.encode("utf-8", "surrogateescape")


def _only_loopback(request: web.Request) -> None:
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if host not in LOOPBACK_HOSTS:
        raise web.HTTPForbidden(reason="without a token only loopback is served")


def _only_own_pages(request: web.Request) -> None:
    """Behind a proxy that ends TLS the scheme is not ours to know; host and port are."""
    host = request.host.lower()
    own = {f"http://{host}", f"https://{host}"}
    if any(origin.lower() not in own for origin in request.headers.getall(hdrs.ORIGIN, ())):
        raise web.HTTPForbidden(reason="pages of other origins change nothing here")


def _only_kinds(request: web.Request, known: Mapping[str, tuple[str, ...]]) -> None:
    """A DELETE without a body is no simple request; everything else says what it is, with a body or without."""
    if request.method == hdrs.METH_DELETE and not request.body_exists:
        return
    resource = request.match_info.route.resource
    kinds = (JSON,) if resource is None else known.get(resource.canonical, (JSON,))
    if request.content_type not in kinds:
        raise web.HTTPUnsupportedMediaType(reason=f"send {' or '.join(kinds)}")
