"""The ESS assistant of a Victron GX: what it stores, what it forgets, and how it steers the battery each step.

Sources: victronenergy/dbus_modbustcp `CCGX-Modbus-TCP-register-list.xlsx` (paths, persistence, modes),
hass-victron#226 and victron-mqtt#262 (60 s in mode 3).

The setpoint is at the grid connection (+ = import): battery = load - PV - grid setpoint, within the ratings; in mode 3
(external control) it is the inverter's AC input, - = discharge. Written by nobody, chosen for the worse: an override
ends `override_s` after its last write (60 s is what clients assume, 5 min has been seen), and with an override or in
mode 3 the minimum SoC is not kept (`guards_min_soc` = True keeps it in modes 1 and 2).
"""

import math
from dataclasses import dataclass, field

from simulators.faces.plant import Plant

COMPENSATED, UNCOMPENSATED, EXTERNAL = 1, 2, 3
OPTIMISED, KEEP_CHARGED = 10, 9
UNLIMITED = -1.0


@dataclass(slots=True, kw_only=True)
class Stored:
    """Settings, kept over a reboot; powers in W, -1 = no limit."""

    grid_setpoint_w: float = 0.0
    mode: int = UNCOMPENSATED
    state: int = OPTIMISED
    minimum_soc_pct: float = 10.0
    discharge_w_max: float = UNLIMITED
    charge_w_max: float = UNLIMITED
    feed_in_w_max: float = UNLIMITED


@dataclass(slots=True, kw_only=True)
class Overrides:
    """What is gone after a reboot or in time; None = not set."""

    grid_setpoint_w: float | None = None
    force_charge: int | None = None
    charge_w_max: float | None = None
    discharge_w_max: float | None = None

    @property
    def any(self) -> bool:
        limits = (self.grid_setpoint_w, self.charge_w_max, self.discharge_w_max)
        return bool(self.force_charge) or any(limit is not None for limit in limits)


@dataclass(slots=True, kw_only=True)
class Inverter:
    """The inverter/charger in mode 3: AC input power per phase and two locks."""

    setpoints_w: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    disable_charge: int = 0
    disable_feed_in: int = 0


class Ess:
    """Steers one plant; `renew_overrides` and `renew_inverter` are to be called at each write of them."""

    def __init__(
        self,
        plant: Plant,
        *,
        override_s: float = 60.0,
        inverter_s: float = 60.0,
        guards_min_soc: bool = False,
        dynamic_ess: bool = False,
    ) -> None:
        self.plant = plant
        self.stored = Stored(minimum_soc_pct=plant.reserve_pct)
        self.overrides = Overrides()
        self.inverter = Inverter()
        self.dynamic_ess = dynamic_ess
        self.wanted_w = 0.0
        self._override_s = override_s
        self._inverter_s = inverter_s
        self._guards_min_soc = guards_min_soc
        self._override_left_s = 0.0
        self._inverter_left_s = 0.0

    @property
    def controlled(self) -> bool:
        return self.stored.mode == EXTERNAL or self.overrides.any

    def settings(self) -> dict[str, float]:
        stored = self.stored
        return {
            "AcPowerSetPoint": stored.grid_setpoint_w,
            "Hub4Mode": float(stored.mode),
            "BatteryLife/State": float(stored.state),
            "BatteryLife/MinimumSocLimit": stored.minimum_soc_pct,
            "MaxDischargePower": stored.discharge_w_max,
            "MaxChargePower": stored.charge_w_max,
            "MaxFeedInPower": stored.feed_in_w_max,
        }

    def renew_overrides(self) -> None:
        self._override_left_s = self._override_s

    def renew_inverter(self) -> None:
        self._inverter_left_s = self._inverter_s

    def forget(self) -> None:
        """As at a reboot."""
        self.overrides = Overrides()
        self.inverter = Inverter()
        self._inverter_left_s = 0.0

    def take_back(self) -> None:
        """As another controller or the owner would."""
        self.overrides = Overrides()
        if self.stored.mode == EXTERNAL:
            self.stored.mode = UNCOMPENSATED

    def step(self, dt_s: float) -> None:
        """Run the timers and tell the battery what to do."""
        self._override_left_s -= dt_s
        self._inverter_left_s -= dt_s
        if self._override_left_s <= 0:
            self.overrides = Overrides()
        plant = self.plant
        plant.reserve_pct = self.stored.minimum_soc_pct
        self.wanted_w = self._limited(self._wanted())
        if self.controlled or self._own_is_special():
            plant.follow(self.wanted_w)
        else:
            plant.serve_home()

    def _own_is_special(self) -> bool:
        stored = self.stored
        limits = (stored.discharge_w_max, stored.charge_w_max, stored.feed_in_w_max)
        return stored.grid_setpoint_w != 0 or stored.state == KEEP_CHARGED or any(limit >= 0 for limit in limits)

    def _wanted(self) -> float:
        """Battery power before limits, + = discharge."""
        plant, stored, overrides = self.plant, self.stored, self.overrides
        if stored.mode == EXTERNAL:
            if self._inverter_left_s <= 0:
                return 0.0  # passthru
            wanted_w = -sum(self.inverter.setpoints_w)
            if self.inverter.disable_charge:
                wanted_w = max(wanted_w, 0.0)
            if self.inverter.disable_feed_in:
                wanted_w = min(wanted_w, max(plant.home_w(), 0.0))
            return wanted_w
        if overrides.force_charge or stored.state == KEEP_CHARGED:
            return -plant.charge_w_max
        setpoint_w = stored.grid_setpoint_w
        if overrides.grid_setpoint_w is not None and not self.dynamic_ess:
            setpoint_w = overrides.grid_setpoint_w
        return plant.home_w() - setpoint_w

    def _limited(self, wanted_w: float) -> float:
        plant, stored, overrides = self.plant, self.stored, self.overrides
        if stored.mode != EXTERNAL:
            if stored.feed_in_w_max >= 0:
                wanted_w = min(wanted_w, plant.home_w() + stored.feed_in_w_max)
            own = overrides.grid_setpoint_w is None
            if plant.soc_pct <= stored.minimum_soc_pct and (own or self._guards_min_soc):
                wanted_w = min(wanted_w, 0.0)
        out_w = min(plant.discharge_w_max, _limit(stored.discharge_w_max), _limit(overrides.discharge_w_max))
        in_w = min(plant.charge_w_max, _limit(stored.charge_w_max), _limit(overrides.charge_w_max))
        return min(max(wanted_w, -in_w), out_w)


def _limit(value_w: float | None) -> float:
    """None and negative values do not limit."""
    return math.inf if value_w is None or value_w < 0 else value_w
