"""Dispatch from the aggregator: how it stands, a search on demand, and its webhooks."""

from dataclasses import dataclass

from aiohttp import web

from gateway.api.exchange import json_answer, problem, read_body
from gateway.api.leap_models import (
    LeapBadSlot,
    LeapDispatchState,
    LeapSearchFound,
    LeapSpan,
    LeapWebhookBody,
    LeapWebhookList,
)
from gateway.api.route import RestRoute
from gateway.clock import Clock
from gateway.domain.access import Scope
from gateway.domain.errors import GatewayError, InvalidInput, PeerBusy, Retry, StorageError, retry_of
from gateway.schemas import operations as ops
from gateway.schemas.interval_rows import rfc3339
from gateway.signals.leap.catch_up import AHEAD_MS, BEHIND_MS, SPAN_MS_MAX, LeapCatchUp
from gateway.signals.leap.reader import ReaderGone
from gateway.signals.leap.registration import LeapRegistration, Webhook
from gateway.signals.leap.signal import LeapSignal
from gateway.signals.leap.webhook_rows import WebhookRows

NOT_CONFIGURED = "signals.leap is not configured, or leap.account is not"
BAD_SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LeapDispatch:
    """The parts of dispatch from the aggregator; None = not configured. `webhooks`: how the registration is changed."""

    signal: LeapSignal | None = None
    catch_up: LeapCatchUp | None = None
    registration: LeapRegistration | None = None
    webhooks: WebhookRows | None = None


class LeapDispatchRoutes:
    """The routes."""

    def __init__(self, leap: LeapDispatch, clock: Clock) -> None:
        self._leap = leap
        self._clock = clock

    async def status(self, _request: web.Request) -> web.StreamResponse:
        signal, search = self._leap.signal, self._leap.catch_up
        if signal is None:
            return json_answer(LeapDispatchState(configured=False))
        standing = signal.standing
        return json_answer(
            LeapDispatchState(
                configured=True,
                newest_webhook=None if signal.newest_ms is None else rfc3339(signal.newest_ms),
                events=standing.events,
                refused=standing.refused,
                early=standing.early,
                without_devices=standing.unresolved,
                unknown_meters=standing.unknown_meters,
                unknown_meters_first=standing.unknown_named,
                unknown_programs=standing.unknown_programs,
                hints=signal.hints,
                hidden=0 if search is None else search.hidden,
                bodies_waiting=signal.waiting,
                bodies_set_aside=signal.inbox.kept_bad,
                bad=await self._bad(signal),
                search_configured=search is not None,
                searched=None if search is None or search.searched_ms is None else rfc3339(search.searched_ms),
                search_failing=None if search is None else search.failing or None,
            )
        )

    async def _bad(self, signal: LeapSignal) -> list[LeapBadSlot]:
        try:
            told = await signal.ask({"ask": "bad", "limit": BAD_SHOWN})
        except ReaderGone as error:
            raise StorageError(str(error)) from error
        return [
            LeapBadSlot(
                body=one["body"], at=rfc3339(one["at_ms"]), place=one["place"], problem=one["problem"],
                event=one["event_id"],
            )
            for one in told["bad"]
        ]  # fmt: skip

    async def catch_up(self, request: web.Request) -> web.StreamResponse:
        asked = await read_body(request, LeapSpan)
        search = self._leap.catch_up
        if search is None:
            return problem(404, NOT_CONFIGURED)
        now_ms = self._clock.now().utc_ms
        from_ms = now_ms - BEHIND_MS if asked.start is None else round(asked.start.timestamp() * 1000)
        to_ms = now_ms + AHEAD_MS if asked.end is None else round(asked.end.timestamp() * 1000)
        if not from_ms < to_ms <= from_ms + SPAN_MS_MAX:
            raise InvalidInput(["end: not after start, or more than 400 days after it"])
        try:
            found = await search.search(from_ms, to_ms, schedule=asked.start is None and asked.end is None)
        except GatewayError as error:
            raise _told(error) from error
        except OSError as error:
            raise StorageError(str(error)) from error
        return json_answer(
            LeapSearchFound(pages=found.pages, results=found.results, hidden=found.hidden, took=found.took)
        )

    async def verify(self, _request: web.Request) -> web.StreamResponse:
        registration = self._leap.registration
        if registration is None:
            return problem(404, NOT_CONFIGURED)
        return json_answer(LeapWebhookList(webhooks=[_shown(one) for one in await registration.verify()]))

    ROUTES = (
        RestRoute(
            operation=ops.SHOW_LEAP_DISPATCH, handler=status, summary="Show how dispatch from the aggregator stands",
            answers={200: LeapDispatchState}, problems=(503,),
        ),
        RestRoute(
            operation=ops.LEAP_CATCH_UP, handler=catch_up, summary="Search the aggregator's dispatch now",
            body=LeapSpan, answers={200: LeapSearchFound}, problems=(400, 404, 502, 503), scope=Scope.ADMIN,
            texts={404: NOT_CONFIGURED},
        ),
        RestRoute(
            operation=ops.VERIFY_LEAP_WEBHOOKS, handler=verify, summary="Ask where the aggregator posts dispatch",
            answers={200: LeapWebhookList}, problems=(404,), texts={404: NOT_CONFIGURED},
        ),
    )  # fmt: skip


def _told(error: GatewayError) -> GatewayError:
    """What the aggregator's answer is for whoever asked here."""
    if isinstance(error, InvalidInput | StorageError):
        return error
    return error if retry_of(error) is Retry.NEVER else PeerBusy(str(error))


def _shown(webhook: Webhook) -> LeapWebhookBody:
    return LeapWebhookBody(
        level=webhook.level, state=webhook.state.value, url=webhook.url or None, wanted=webhook.wanted or None,
        headers=list(webhook.headers), detail=webhook.detail or None,
    )  # fmt: skip
