"""The error envelope that meters, enrollments, nominations and meter jobs share (section 1)."""

from typing import Any

from simulators.aggregator.contract import Body
from simulators.aggregator.refusal import Refused
from simulators.aggregator.service import Reply

INTERNAL = "An error happened whilst processing your request"


def meters_envelope(refused: Refused) -> Reply:
    """Title, status, details; an internal error is a bare string. `items` make the details an array."""
    if refused.status >= 500:
        return Reply(status=refused.status, json=INTERNAL, body=Body.METERS_INTERNAL_ERROR)
    status = 400 if refused.status == 415 else refused.status
    body: dict[str, Any] = {"title": refused.title[:2000], "status": status}
    if "items" in refused.details:
        return Reply(status=status, json=body | {"details": refused.details["items"]}, body=Body.METER_JOBS_ERROR)
    return Reply(status=status, json=body | {"details": dict(refused.details)}, body=Body.METERS_ERROR)
