"""Sign-up of customers on the aggregator's own page: the link that leads there, and its webhooks about it.

No call begins a sign-up: a link does, with a reference that comes back with every webhook. The page is hosted and made
for no frame. The link holds the reference and nothing else of the customer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.domain.errors import InvalidInput, refuse

SESSION, AUTHORIZATION = "connect_session.updated", "connect_session.authorization_updated"
REFERENCE = re.compile(r"[A-Za-z0-9_.:-]{3,64}")
"""References that may stand in a link: none with the sign of a mail address, or with a space as in a name."""
WORD = re.compile(r"[A-Za-z0-9_ .-]{1,64}")


class LeapConnectSettings(BaseModel):
    """The aggregator's sign-up page. `account`: the account's name in the partner portal; `region`: where the homes
    are; `program`: where the page is of one program; `url`: the page."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    account: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$", examples=["battery-maker"])]
    region: Literal["CAISO", "NYISO", "PJM", "ERCOT", "WECC_PC", "WECC_SW"] = "CAISO"
    variant: Literal["RESIDENTIAL", "COMMERCIAL", "RESIDENTIAL_AGREEMENTS_ONLY", "COMMERCIAL_AGREEMENTS_ONLY"] = (
        "RESIDENTIAL"
    )
    program: Literal["PSE-RPO", "SRP-RPO"] | None = None
    url: Annotated[str, Field(pattern=r"^https://[^/?#@]+(/[^?#]*)?$")] = "https://connect.leap.energy"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        refuse(
            ["variant: agreements alone are signed in PJM only"]
            if self.variant.endswith("AGREEMENTS_ONLY") and self.region != "PJM"
            else []
        )
        return self

    @property
    def host(self) -> str:
        """Where the link leads."""
        return urlsplit(self.url).netloc


def link(settings: LeapConnectSettings, reference: str) -> str:
    """The link for a customer. Raises InvalidInput where the reference may say who that is."""
    if not REFERENCE.fullmatch(reference):
        raise InvalidInput(["reference: 3 to 64 letters, digits or _ . : - ; a link must not say who the customer is"])
    asked = {"transmissionRegion": settings.region, "variant": settings.variant, "account": settings.account}
    asked |= {} if settings.program is None else {"program": settings.program}
    return f"{settings.url}?{urlencode(asked | {'refId': reference})}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectEvent:
    """A webhook about a sign-up: a word of the session (`utility` "") or of the authorization at a utility."""

    reference: str
    utility: str
    word: str


def connect_event(body: object) -> ConnectEvent | None:
    """A webhook's body as one about a sign-up; None = it is about something else. Raises InvalidInput where it is about
    a sign-up and cannot be read; what it says is repeated nowhere."""
    payload = body.get("payload") if isinstance(body, Mapping) else None
    kind = payload.get("webhook_event_type") if isinstance(payload, Mapping) else None
    if not isinstance(payload, Mapping) or kind not in (SESSION, AUTHORIZATION):
        return None
    reference = _matching(payload, "partner_reference", REFERENCE)
    utility = _matching(payload, "utility_name", WORD) if kind == AUTHORIZATION else ""
    return ConnectEvent(reference=reference, utility=utility, word=_matching(payload, "status", WORD))


def _matching(payload: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    text = payload.get(name)
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise InvalidInput([f"payload.{name}: missing, or not what it is here"])
    return text
