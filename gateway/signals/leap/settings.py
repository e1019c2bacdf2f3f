"""How dispatch from the aggregator is received and caught up with."""

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.domain.errors import refuse
from gateway.schemas.operations import LEAP_GROUPS_DISPATCHED, LEAP_METERS_DISPATCHED
from gateway.transports.web import check_url

SECRET_MIN = 16
PATHS = {"meter": LEAP_METERS_DISPATCHED.path, "group": LEAP_GROUPS_DISPATCHED.path}
"""Where the aggregator posts."""

_PRINTABLE = re.compile(r"[\x21-\x7e]+")


class LeapSignalSettings(BaseModel):
    """`secret`: what the aggregator sends in `header` with every webhook. `addresses`: networks that webhooks may come
    from, none = any. `url`: scheme and host under which the aggregator reaches this gateway; without it nobody checks
    the registration. `levels`: whether it dispatches meters, market groups or both. Search looks again every
    `search_every_s`; `exclude_real_time`: not for 5-minute dispatch; `exclude_voluntary`: not for voluntary dispatch.
    `read_timeout_s`: for reading one body."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret: Annotated[SecretStr, Field(examples=["env:LEAP_WEBHOOK_SECRET"])]
    header: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")] = "x-leap-secret"
    addresses: Annotated[tuple[IPv4Network | IPv6Network, ...], Field(max_length=256)] = ()
    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+$")] | None = None
    levels: Annotated[tuple[Literal["meter", "group"], ...], Field(min_length=1, max_length=2)] = ("meter",)
    search_every_s: Annotated[float, Field(ge=60, le=86_400)] = 300
    exclude_real_time: bool = True
    exclude_voluntary: bool = False
    read_timeout_s: Annotated[float, Field(ge=1, le=3_600)] = 120

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        faults = []
        secret = self.secret.get_secret_value()
        if len(secret) < SECRET_MIN:
            faults.append(f"secret: shorter than {SECRET_MIN} characters")
        elif not _PRINTABLE.fullmatch(secret):
            faults.append("secret: holds a line break, a space or another sign that no header's value should have")
        if self.header in ("authorization", "content-type", "content-length", "host"):
            faults.append(f"header: {self.header} has a meaning of its own")
        if self.url is not None:
            try:
                check_url(self.url, secret=True, key="secret")
            except ValueError as error:
                faults.append(str(error))
        if len(set(self.levels)) < len(self.levels):
            faults.append("levels: one stands twice")
        refuse(faults)
        return self
