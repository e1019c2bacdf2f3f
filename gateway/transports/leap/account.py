"""The account at the aggregator: which environment, which key.

A key belongs to one environment, and the other one answers it with 403. Each environment has one host, so the address
follows from the environment; another address is for a proxy or a test, and never the other environment's host.
"""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.domain.errors import refuse
from gateway.transports.web import check_url

HOSTS = {"production": "api.leap.energy", "staging": "api.staging.leap.energy"}
_PRINTABLE = re.compile(r"[\x21-\x7e]+")


class LeapAccount(BaseModel):
    """`key`: the API key from the partner portal, with the permissions of what is to be done with it. `url`: scheme and
    host, None = the environment's own. `timeout_s`: for one answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: Annotated[Literal["production", "staging"], Field(examples=["staging"])]
    key: Annotated[SecretStr, Field(examples=["env:LEAP_KEY"])]
    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+$")] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 30

    @property
    def base(self) -> str:
        """Scheme and host that requests go to."""
        return self.url or f"https://{HOSTS[self.environment]}"

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        faults = []
        if self.url is not None:
            try:
                check_url(self.url, secret=True, key="key")
            except ValueError as error:
                faults.append(str(error))
            else:
                of = {host: name for name, host in HOSTS.items()}.get(urlsplit(self.url).hostname or "")
                if of not in (None, self.environment):
                    faults.append(f"url: this is the host of {of}, but environment is {self.environment}")
        if not _PRINTABLE.fullmatch(self.key.get_secret_value()):
            faults.append("key: empty, or holds a line break, a space or another sign that no key has")
        refuse(faults)
        return self
