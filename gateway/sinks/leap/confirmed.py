"""What only the aggregator can confirm about its interface, as data with a state: confirmed, or not yet.

The public text is silent on these points. Until one is confirmed the gateway takes the reading that does least harm,
says UNCONFIRMED wherever a figure or an upload rests on it, and learns nothing from silence.
"""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from gateway.observability.metrics import Sample, gauge
from gateway.sinks.leap.rows import NetColumn

POINTS: dict[str, str] = {
    "upload_schema": "which schema a battery's interval data is uploaded under",
    "energy_columns": "which energy columns it wants: generated and consumed, net, or all three",
    "net_sign": "the sign of net energy",
    "energy_kw": "whether the power of a dispatch is per device or per meter",
    "penalty_sign": "the sign of `penalty` in a revenue report",
    "error_lines": "whether the header counts as line 1 in the errors of an upload",
    "transport": "whether interval data goes over HTTP or SFTP",
}
"""The points and the question that each answers."""

UNCONFIRMED = gauge("gateway_leap_unconfirmed", "Points that the aggregator has not confirmed.")


class LeapConfirmed(BaseModel):
    """What the aggregator has confirmed; None = not confirmed. `net_sign`: what a positive net energy is;
    `penalty_sign`: what a positive penalty does to the payment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upload_schema: Literal["load", "runtime", "performance"] | None = None
    energy_columns: Literal["generated_consumed", "net", "all"] | None = None
    net_sign: Literal["generation", "consumption"] | None = None
    energy_kw: Literal["device", "meter"] | None = None
    penalty_sign: Literal["reduces", "increases"] | None = None
    error_lines: Literal["header_is_line_1", "first_row_is_line_1"] | None = None
    transport: Literal["http", "sftp"] | None = None

    @model_validator(mode="after")
    def _signed(self) -> Self:
        if self.energy_columns in ("net", "all") and self.net_sign is None:
            raise ValueError("energy_columns: net energy is written only once net_sign is confirmed too")
        return self

    @property
    def unconfirmed(self) -> list[str]:
        """The points that are open. The sign of net energy is none where net energy is not wanted."""
        needless = {"net_sign"} if self.energy_columns == "generated_consumed" else set()
        return [point for point in POINTS if getattr(self, point) is None and point not in needless]

    def samples(self) -> Iterator[Sample]:
        yield UNCONFIRMED.sample(len(self.unconfirmed))

    @property
    def net(self) -> NetColumn | None:
        """How net energy is written, None = not at all."""
        if self.energy_columns not in ("net", "all"):
            return None
        return NetColumn(only=self.energy_columns == "net", generation=self.net_sign == "generation")

    @property
    def first_row_line(self) -> int | None:
        """The number of the first row's line in an error, None = not confirmed."""
        return None if self.error_lines is None else 2 if self.error_lines == "header_is_line_1" else 1
