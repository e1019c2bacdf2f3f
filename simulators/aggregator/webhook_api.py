"""Platform webhooks: subscriptions under /v1.1/webhooks and the events sent to them (section 5).

Every event goes to every subscription of its type, in an envelope with an id of its own; there is no time and no
sequence in it. Not public [?]: what answers a body that is wrong (no 400 is declared; here 400).
"""

import time
import uuid
from typing import Any

import orjson

from simulators.aggregator.contract import BOOL, COUNT, ID, TEXT, Body, JsonSchema, Shape, array, enum, record
from simulators.aggregator.deliveries import PLATFORM_LADDER, Deliveries, Delivery, Manner
from simulators.aggregator.permissions import Permission
from simulators.aggregator.refusal import Refused
from simulators.aggregator.service import Call, Reply, Route, Service, json_body
from simulators.aggregator.switches import Operation

PATH = "/v1.1/webhooks"
EVENT_TYPES = enum(
    "meter.created", "connect_session.updated", "connect_session.authorization_updated",
    "meter.enrollment.global-status.updated", "meter.enrollment.participation-status.updated",
    "meter.enrollment.required-actions.updated", "meter.enrollment.group.updated",
)  # fmt: skip
FIELDS: dict[str, JsonSchema] = {
    "receiver_url": {"type": "string", "minLength": 1},
    "event_types": array(EVENT_TYPES),
    "headers": array(record("name value", name=TEXT, value=TEXT)),
}
SUBSCRIPTION = Shape("webhook", record("receiver_url event_types", **FIELDS))
CREATED = Shape("webhook id", record("webhook_id", webhook_id=ID))
LISTED = Shape(
    "webhooks",
    record("webhooks", webhooks=array(record("webhook_id event_types headers receiver_url", webhook_id=ID, **FIELDS))),
)
DELETED = Shape("webhook deleted", record("message", message=TEXT))
PAYLOAD = Shape("webhook payload", record("webhook_event_type", webhook_event_type=EVENT_TYPES))
TESTED = Shape(
    "webhook test", record("is_successful", is_successful=BOOL, error=TEXT, status_code=COUNT, response_time_ms=COUNT)
)


class WebhookApi:
    """The subscriptions of the account, by id."""

    def __init__(self, deliveries: Deliveries) -> None:
        self.subscriptions: dict[str, dict[str, Any]] = {}
        self._deliveries = deliveries

    def tell(
        self, event_type: str, *, manner: Manner | None = None, event_id: str | None = None, **payload: Any
    ) -> list[Delivery]:
        """Send an event off to whoever subscribed to its type; any type and any fields."""
        envelope = {
            "webhook_event_id": event_id or str(uuid.uuid4()),
            "payload": {"webhook_event_type": event_type} | payload,
        }
        body = orjson.dumps(envelope)
        sent: list[Delivery] = []
        for subscription in self.subscriptions.values():
            if event_type in subscription["event_types"]:
                url, headers = _target(subscription)
                sent += self._deliveries.send(url, headers, body, manner or Manner(waits_s=PLATFORM_LADDER))
        return sent

    def service(self) -> Service:
        """What the server mounts."""
        one = PATH + "/{webhook_id}"
        rows = (
            ("GET", PATH, Operation.WEBHOOKS, self._list),
            ("POST", PATH, Operation.WEBHOOK_CREATE, self._create),
            ("PUT", one, Operation.WEBHOOK_PUT, self._put),
            ("DELETE", one, Operation.WEBHOOK_DELETE, self._delete),
            ("POST", one + "/test", Operation.WEBHOOK_TEST, self._test),
        )
        write = Permission.WRITE_WEBHOOKS
        routes = tuple(
            Route(method=method, path=path, operation=operation, permission=write, handler=handler)
            for method, path, operation, handler in rows
        )
        return Service(name="webhooks", prefixes=(PATH,), routes=routes, envelope=envelope)

    def _list(self, _: Call) -> Reply:
        listed = [{"webhook_id": id_, "headers": []} | kept for id_, kept in self.subscriptions.items()]
        return Reply(json={"webhooks": listed}, body=LISTED)

    def _create(self, call: Call) -> Reply:
        body = json_body(call, SUBSCRIPTION)
        webhook_id = str(uuid.uuid4())
        self.subscriptions[webhook_id] = _kept(body)
        return Reply(json={"webhook_id": webhook_id}, body=CREATED)

    def _put(self, call: Call) -> Reply:
        webhook_id = self._id(call)
        self.subscriptions[webhook_id] = _kept(json_body(call, SUBSCRIPTION))
        return Reply(json={"webhook_id": webhook_id}, body=CREATED)

    def _delete(self, call: Call) -> Reply:
        del self.subscriptions[self._id(call)]
        return Reply(json={"message": "Webhook deleted"}, body=DELETED)

    async def _test(self, call: Call) -> Reply:
        url, headers = _target(self.subscriptions[self._id(call)])
        payload = json_body(call, PAYLOAD)
        began_s = time.monotonic()
        body = orjson.dumps({"webhook_event_id": str(uuid.uuid4()), "payload": payload})
        posted = await self._deliveries.post(url, headers, body)
        good = posted.status is not None and 200 <= posted.status < 300
        reply: dict[str, Any] = {"is_successful": good, "response_time_ms": round((time.monotonic() - began_s) * 1000)}
        if posted.status is not None:
            reply["status_code"] = posted.status
        if not good:
            reply["error"] = posted.error or "receiver did not answer 2xx"
        return Reply(json=reply, body=TESTED)

    def _id(self, call: Call) -> str:
        webhook_id = call.ids["webhook_id"]
        if webhook_id not in self.subscriptions:
            raise Refused(404, "Webhook not found")
        return webhook_id


def envelope(refused: Refused) -> Reply:
    """An error of the webhook service."""
    return Reply(
        status=refused.status, json={"error": str(refused.status), "message": refused.title}, body=Body.WEBHOOKS_ERROR
    )


def _kept(body: dict[str, Any]) -> dict[str, Any]:
    return {key: body[key] for key in FIELDS if key in body}


def _target(subscription: dict[str, Any]) -> tuple[str, dict[str, str]]:
    headers = {header["name"]: header["value"] for header in subscription.get("headers", [])}
    return subscription["receiver_url"], headers
