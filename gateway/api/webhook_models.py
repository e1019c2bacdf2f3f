"""Bodies of the REST answers about webhooks."""

from gateway.schemas.body import Body
from gateway.schemas.reports import AnswerBody


class WebhookAnswerBody(Body):
    """What a peer is told: the decision on each event of its message; `problems`: what was not understood, as
    `/pointer: what is wrong`."""

    events: list[AnswerBody]
    problems: list[str]


class WebhookPeerRow(Body):
    """A peer. `evidence`: how well its file is known to describe it; `messages` since the start, by what became of
    them."""

    webhook: str
    title: str
    evidence: str
    auth: str
    messages: dict[str, int]


class WebhookPeerList(Body):
    """The peers that the configuration names."""

    webhooks: list[WebhookPeerRow]


class WebhookMessage(Body):
    """A message as it came: `text`, or `base64` where it is none. `outcome`: done | refused | later | waiting."""

    received: str
    outcome: str
    problems: list[str]
    text: str | None
    base64: str | None


class WebhookMessageList(Body):
    """The newest messages of a peer, newest first."""

    messages: list[WebhookMessage]
