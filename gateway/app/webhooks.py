"""The part of the graph that takes dispatch by webhook."""

from gateway.api.views.dispatch import DispatchView
from gateway.app.parts import RunningParts
from gateway.clock import Clock
from gateway.config.secrets import read_secret
from gateway.config.settings import Settings
from gateway.domain.events.lifecycle import EventState
from gateway.domain.events.request import EventRequest
from gateway.domain.replay import ReplayBounds
from gateway.ports.signals import Submit
from gateway.signals.webhook.door import Newest, WebhookDoor
from gateway.signals.webhook.language import HmacAuth
from gateway.signals.webhook.loader import load_webhooks
from gateway.storage.replay import DoorWindow, ReplayStore
from gateway.storage.webhook_inbox import WebhookInbox

DOOR = "webhook"


async def webhooks(
    settings: Settings, *, submit: Submit, view: DispatchView, replays: ReplayStore, clock: Clock, parts: RunningParts
) -> WebhookDoor:
    """The door for the peers that the configuration names. Raises InvalidInput."""
    peers = {} if settings.webhooks_dir is None else load_webhooks(settings.webhooks_dir, read_secret)
    for peer in peers.values():
        auth = peer.document.auth
        settings.devices.keep_own(one for one in (auth.secret, auth.former_secret) if one is not None)

    def window_of(auth: HmacAuth) -> DoorWindow:
        tolerance_ms = 1000 * (auth.timestamp.tolerance_s if auth.timestamp is not None else 0)
        return replays.window(DOOR, ReplayBounds(age_ms_max=tolerance_ms, ahead_ms_max=tolerance_ms))

    inbox = await parts.start(WebhookInbox(settings.state_dir))
    return await parts.start(
        WebhookDoor(peers, clock=clock, submit=submit, newest=newest_in(view), inbox=inbox, window_of=window_of)
    )


def newest_in(view: DispatchView) -> Newest:
    """What was accepted last of an event, there or in the store."""

    async def newest(event_id: str, source: str) -> EventRequest | None:
        found = [entry for entry in await view.find(event_id, source) if entry.state is not EventState.REJECTED]
        return max((entry.request for entry in found), key=lambda request: request.revision, default=None)

    return newest
