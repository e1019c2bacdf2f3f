"""Settings of the services."""

from pydantic import BaseModel, ConfigDict, Field


class ControlSettings(BaseModel):
    """How the fleet is steered. `fleet_w_per_s` bounds how fast commanded power moves, both ways; `ceiling_mw` the
    magnitude of a target; `horizon_s` smooths the allocation; releases are spread over `release_spread_s`; a command
    has no effect `command_valid_s` after it was made; `warm_up_s` is the longest wait for readings after a restart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tick_s: float = Field(default=1.0, ge=0.2, le=10)
    fleet_w_per_s: float = Field(default=100_000.0, gt=0)
    ceiling_mw: float = Field(default=100.0, gt=0)
    horizon_s: float = Field(default=600.0, gt=0, le=14_400)
    release_spread_s: float = Field(default=30.0, ge=0, le=900)
    write_deadline_s: float = Field(default=5.0, gt=0, le=60)
    command_valid_s: float = Field(default=20.0, gt=0, le=60)
    warm_up_s: float = Field(default=4.0, ge=0, le=30)
    reading_age_s_max: float = Field(default=120.0, gt=0, le=900)
    site_margin_w: float = Field(default=50.0, ge=0, le=1_000)
