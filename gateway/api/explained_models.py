"""Bodies of the REST interface about what a home did on a day."""

from gateway.schemas.body import Body


class BatteryEventBody(Body):
    """The part of a battery in one event that is over. Energies Wh, + = given to the home or the grid."""

    event: str
    source: str
    program: str
    start: str
    ended: str
    status: str
    failure: str | None
    limits: list[str]
    asked_wh: float
    delivered_wh: float
    shortfall_wh: float


class BatteryDayBody(Body):
    """A battery on a day: in words (`says`), and the figures that they rest on; null = not known. `covered_pct`: the
    part of the day that was measured; `reserve_pct`: its owner's reserve as it is set now."""

    device: str
    says: list[str]
    events: list[BatteryEventBody]
    discharge_wh: float | None
    charge_wh: float | None
    covered_pct: float
    soc_low_pct: float | None
    soc_high_pct: float | None
    reserve_pct: float | None


class HomeDayBody(Body):
    """What the batteries of a home did on a local day. Events that still run are not in it."""

    home: str
    on: str
    zone: str
    batteries: list[BatteryDayBody]
