"""How the sink of the aggregator is configured."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.domain.errors import refuse
from gateway.schemas.interval_rows import RowsPerS
from gateway.sinks.leap.missing import Names
from gateway.sinks.leap.over_sftp import LeapSftpSettings
from gateway.transports.web import check_url

_PRINTABLE = re.compile(r"[\x21-\x7e]+")


class LeapCsvSinkSettings(BaseModel):
    """The aggregator's account. `url`: scheme and host, `token`: the API key; both may be left out where files go over
    `sftp`. `meters`: the file that `meters` reads. `upload_schema`: what the aggregator is told of a file. `poll_s`:
    how often to ask for a job. `final`: the value of that column, None = no such column (its meaning is not public).
    `missing_names`: which names of the search's fields are sent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["leap_csv"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$", examples=["leap"])]
    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+$")] | None = None
    token: SecretStr | None = None
    sftp: LeapSftpSettings | None = None
    meters: Annotated[Path, Field(examples=["leap-meters.csv"])]
    upload_schema: Literal["load", "runtime", "performance"] = "load"
    missing_names: Names = "schema"
    min_coverage_pct: Annotated[float, Field(ge=0, le=100)] = 95
    final: bool | None = None
    poll_s: Annotated[float, Field(gt=0, le=600)] = 30
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 60
    job_timeout_s: Annotated[float, Field(gt=0, le=86_400)] = 600
    batch_rows: Annotated[int, Field(ge=1, le=200_000)] = 50_000
    rows_per_s_max: RowsPerS = 100_000
    gather_s: Annotated[float, Field(ge=0, le=86_400)] = 900

    @property
    def transport(self) -> Literal["http", "sftp"]:
        """The way that files go."""
        return "http" if self.sftp is None else "sftp"

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        faults = []
        if (self.url is None) != (self.token is None):
            faults.append("url: belongs together with token")
        elif self.url is None and self.sftp is None:
            faults.append("url: required, or sftp")
        if self.url is not None:
            try:
                check_url(self.url, secret=True)
            except ValueError as error:
                faults.append(str(error))
        if self.token is not None and not _PRINTABLE.fullmatch(self.token.get_secret_value()):
            faults.append("token: holds a line break, a space or another sign that no key has")
        if self.job_timeout_s <= self.poll_s:
            faults.append("job_timeout_s: must be longer than poll_s, or no job is ever seen to end")
        refuse(faults)
        return self
