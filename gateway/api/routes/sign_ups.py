"""Sign-ups of customers at the aggregator: the link of one, and how far each is."""

from aiohttp import web

from gateway.api.exchange import PAGE_MAX, json_answer, json_list, problem
from gateway.api.route import Number, RestRoute, Text
from gateway.api.sign_up_models import CustomerSignUp, SignUpList, SignUpProgressState
from gateway.domain.types import is_device_id
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.services.programs.enrollment import Enrollments
from gateway.services.programs.sign_ups import SignUps, SignUpSeen

AFTER, LIMIT = Text("after", most=64), Number("limit", 100, PAGE_MAX)


class SignUpRoutes:
    """The routes."""

    def __init__(self, sign_ups: SignUps, enrollments: Enrollments) -> None:
        self._sign_ups = sign_ups
        self._enrollments = enrollments

    async def sign_ups(self, request: web.Request) -> web.StreamResponse:
        limit = LIMIT.of(request)
        page = await self._sign_ups.page(AFTER.of(request) or "", limit) if limit else []
        following = page[-1].sign_up.reference if page and len(page) == limit else None
        return await json_list(request, SignUpList(sign_ups=[], next=following), "sign_ups", map(_state, page))

    async def sign_up(self, request: web.Request) -> web.StreamResponse:
        ref = request.match_info["id"]
        if not is_device_id(ref) or not await self._enrollments.store.customers("", 1, only=ref):
            return problem(404, "no such customer")
        return json_answer(_state(await self._sign_ups.of(ref)))

    ROUTES = (
        RestRoute(
            operation=ops.LIST_SIGN_UPS, handler=sign_ups,
            summary="Sign-ups at the aggregator of which something was heard, by reference", query=(AFTER, LIMIT),
            answers={200: SignUpList}, problems=(400, 503),
        ),
        RestRoute(
            operation=ops.SHOW_SIGN_UP, handler=sign_up,
            summary="A customer's link to the aggregator's sign-up, and how far that is",
            answers={200: CustomerSignUp}, problems=(404, 503),
        ),
    )  # fmt: skip


def _state(one: SignUpSeen) -> CustomerSignUp:
    found = one.sign_up
    return CustomerSignUp(
        reference=found.reference, link=one.link, state=found.session.state,
        since=None if found.since_ms is None else rfc3339(found.since_ms), unknown=list(found.session.unknown),
        authorizations=[
            SignUpProgressState(utility=each.utility, state=each.state, unknown=list(each.unknown))
            for each in found.authorizations
        ],
        required_actions=list(one.actions),
    )  # fmt: skip
