"""LFP batteries of a fleet, their inverters and the meters of their homes, moved step by step.

Signs: `battery_w` + = discharge, `grid_w` + = import, both AC. Per site `load = pv + sum(battery) + grid` always holds.
State of charge is in percent of the usable capacity. Nothing here reads a clock: time passes by `step`.
"""

import math
from enum import IntEnum

import numpy as np

from simulators.curves import DAY_S, Curves
from simulators.homes import Bools, Floats, Homes

TAPER_FULL_PCT = 8.0
TAPER_EMPTY_PCT = 8.0
TAPER_MIN = 0.05
THERMAL_S = 3 * 3_600.0
HEAT_J_PER_K_WH = 10.0


class Mode(IntEnum):
    """Who steers the battery."""

    SELF_CONSUMPTION = 0
    REMOTE = 1
    BACKUP = 2


class Batteries:
    """The true state of every battery, and what its own BMS believes.

    Inputs, written between steps: `mode`, `setpoint_w`, `blocked` (in remote mode: no discharge, charging as in
    self-consumption), `reserve_pct`, `inhibited`, `islanded` (both devices of a site island together). `guard`: in
    remote mode the firmware itself stops discharging at the reserve.
    """

    def __init__(
        self, homes: Homes, *, time_s: float = 64_800.0, guard: bool = True, curves: Curves | None = None
    ) -> None:
        n = len(homes)
        rng = np.random.default_rng([homes.seed, 3])
        self.homes = homes
        self.guard = guard
        self.time_s = time_s
        self._curves = curves or Curves(load_base_w=homes.load_base_w, pv_peak_w=homes.pv_peak_w, seed=homes.seed)
        self._site = homes.site_index
        self._share = homes.discharge_w_max / self._per_site(homes.discharge_w_max)[self._site]
        self._coupled = np.isfinite(homes.inverter_w_max)
        self._site_inverter_w = np.full(homes.site_count, math.inf)
        np.minimum.at(self._site_inverter_w, self._site, homes.inverter_w_max)
        export_allowed = np.ones(homes.site_count, dtype=np.bool_)
        np.logical_and.at(export_allowed, self._site, homes.export_allowed)
        self._zero_export = ~export_allowed
        self._error_pct_max = homes.soc_uncertainty_pct - homes.soc_step_pct / 2
        self._error_gain = rng.uniform(-0.03, 0.03, n)
        self._error_pct_per_h = rng.uniform(-0.2, 0.2, n)

        self.mode = np.full(n, Mode.SELF_CONSUMPTION, dtype=np.int8)
        self.setpoint_w = np.zeros(n)
        self.blocked = np.zeros(n, dtype=np.bool_)
        self.reserve_pct = homes.reserve_pct.copy()
        self.inhibited = np.zeros(n, dtype=np.bool_)
        self.islanded = np.zeros(n, dtype=np.bool_)

        self.energy_wh = homes.capacity_wh * homes.soc_start_pct / 100
        self.error_pct = rng.uniform(-1, 1, n) * self._error_pct_max * 0.6
        self.temp_c = homes.ambient_c.copy()
        self.full = self.energy_wh >= homes.capacity_wh
        self.empty = self.energy_wh <= 0
        self.battery_w = np.zeros(n)
        self.charged_wh = np.round(rng.uniform(1e5, 5e6, n))
        self.discharged_wh = np.round(self.charged_wh * 0.9)
        self.standby_wh = np.zeros(n)
        self._set_site_powers(*self._curves.at(time_s))

    # what is true

    @property
    def true_soc_pct(self) -> Floats:
        """State of charge in the cells, which no product knows exactly."""
        soc: Floats = 100 * self.energy_wh / self.homes.capacity_wh
        return soc

    @property
    def grid_w(self) -> Floats:
        """Power at each device's grid connection (the site's meter; + = import)."""
        grid_w: Floats = self.site_grid_w[self._site]
        return grid_w

    @property
    def load_w(self) -> Floats:
        load_w: Floats = self.site_load_w[self._site]
        return load_w

    @property
    def pv_w(self) -> Floats:
        pv_w: Floats = self.site_pv_w[self._site]
        return pv_w

    def deliverable_wh(self, floor_pct: Floats | float) -> Floats:
        """True AC energy each battery can deliver before it reaches `floor_pct`; at least 0."""
        above_pct = np.maximum(0.0, self.true_soc_pct - floor_pct)
        return above_pct / 100 * self.homes.capacity_wh * self.homes.efficiency_discharge

    def available_discharge_w(self, floor_pct: Floats | float, duration_s: float = 0.0) -> Floats:
        """The most each battery can truly discharge now and keep up for `duration_s` above `floor_pct`.

        Counts BMS limits, inverter room, energy, export permission and site export limits (a site's share is split in
        proportion). An islanded, inhibited or already empty battery counts as 0.
        """
        limit_w = self._discharge_room_w()
        energy_wh = self.deliverable_wh(floor_pct)
        power_w = np.where(energy_wh > 0, limit_w, 0.0)
        if duration_s > 0:
            standby_wh = self.homes.standby_w * duration_s / 3600
            power_w = np.minimum(power_w, np.maximum(0.0, energy_wh - standby_wh) * 3600 / duration_s)
        power_w = np.where(self.islanded | self.inhibited, 0.0, power_w)
        export_w = np.where(self.homes.export_allowed, np.nan_to_num(self.homes.site_export_w_max, posinf=1e12), 0.0)
        site_w = np.maximum(0.0, self.load_w - self.pv_w + export_w)
        wanted_w = self._per_site(power_w)[self._site]
        return np.where(wanted_w > site_w, power_w * site_w / np.maximum(wanted_w, 1e-9), power_w)

    # what the BMS reports

    def reported_soc_pct(self) -> Floats:
        """The product's estimate in its coarse steps; never further from the truth than `soc_uncertainty_pct`."""
        step_pct = self.homes.soc_step_pct
        reported: Floats = np.clip(np.round(self._estimate_pct() / step_pct) * step_pct, 0.0, 100.0)
        return reported

    def discharge_limit_w(self) -> Floats:
        """Most the BMS lets out now: rating, taper near empty, temperature."""
        taper = np.clip(self.true_soc_pct / TAPER_EMPTY_PCT, TAPER_MIN, 1.0)
        derate = np.interp(self.temp_c, [-20.0, -10.0, 48.0, 60.0], [0.0, 1.0, 1.0, 0.0])
        return np.where(self.empty, 0.0, self.homes.discharge_w_max * taper * derate)

    def charge_limit_w(self) -> Floats:
        """Most the BMS takes now, as a magnitude: nothing below 0 degC, taper near full."""
        taper = np.clip((100 - self.true_soc_pct) / TAPER_FULL_PCT, TAPER_MIN, 1.0)
        derate = np.interp(self.temp_c, [0.0, 10.0, 45.0, 55.0], [0.2, 1.0, 1.0, 0.0])
        return np.where(self.full | (self.temp_c < 0), 0.0, self.homes.charge_w_max * taper * derate)

    def charge_counter_wh(self) -> Floats:
        """Lifetime AC energy charged in the product's steps; NaN where it has no counters."""
        return self._in_steps(self.charged_wh)

    def discharge_counter_wh(self) -> Floats:
        """Lifetime AC energy discharged in the product's steps; NaN where it has no counters."""
        return self._in_steps(self.discharged_wh)

    # time

    def step(self, dt_s: float) -> None:
        """Move everything by `dt_s` seconds (0.05 to 60 s is sensible; power is constant within a step)."""
        self.time_s += dt_s
        load_w, pv_w = self._curves.at(self.time_s)
        pv_w = np.minimum(pv_w, self._site_inverter_w)
        self.site_load_w, self.site_pv_w = load_w, pv_w
        discharge_w, charge_w = self._discharge_room_w(), self.charge_limit_w()
        wanted_w = self._wanted_w(load_w, pv_w, discharge_w)
        moved_w = (wanted_w - self.battery_w) * -np.expm1(-dt_s / self.homes.response_s)
        slew_w = self.homes.slew_w_per_s * dt_s
        power_w = np.where(self.islanded, wanted_w, self.battery_w + np.clip(moved_w, -slew_w, slew_w))
        self.battery_w = self._within_energy(np.clip(power_w, -charge_w, discharge_w), dt_s)
        self._integrate(dt_s)
        self._set_site_powers(load_w, pv_w)

    def _wanted_w(self, load_w: Floats, pv_w: Floats, discharge_w: Floats) -> Floats:
        net_w = self._own_net_w(load_w - pv_w)
        above_reserve = self._estimate_pct() > self.reserve_pct
        own_w = np.where(above_reserve, net_w, np.minimum(net_w, 0.0))
        backup_w = np.where(self.homes.grid_charge_allowed, -0.5 * self.homes.charge_w_max, np.minimum(net_w, 0.0))
        remote_w = np.where(self.blocked, np.minimum(net_w, 0.0), self.setpoint_w)
        if self.guard:
            remote_w = np.where(above_reserve, remote_w, np.minimum(remote_w, 0.0))
        wanted_w = np.where(self.mode == Mode.REMOTE, remote_w, np.where(self.mode == Mode.BACKUP, backup_w, own_w))
        wanted_w = np.where(self.inhibited, 0.0, wanted_w)
        if self.islanded.any():
            room_w = np.where(self.inhibited, 0.0, discharge_w)
            share = room_w / np.maximum(self._per_site(room_w)[self._site], 1e-9)
            covering_w = (load_w - pv_w)[self._site] * np.where(
                load_w[self._site] > pv_w[self._site], share, self._share
            )
            wanted_w = np.where(self.islanded, np.where(self.inhibited, 0.0, covering_w), wanted_w)
        return wanted_w

    def _own_net_w(self, net_w: Floats) -> Floats:
        """What the meter leaves to each battery that goes by it, in a mode of its own or blocked and charging from PV:
        net of what others at the site do under outside control, shared by rating."""
        outside = (self.mode == Mode.REMOTE) & ~self.blocked
        if not outside.any():
            return net_w[self._site] * self._share
        left_w = net_w - self._per_site(np.where(outside, self.battery_w, 0.0))
        own_w = np.where(outside, 0.0, self.homes.discharge_w_max)
        share = np.where(outside, self._share, own_w / np.maximum(self._per_site(own_w)[self._site], 1e-9))
        return np.where(outside, net_w[self._site], left_w[self._site]) * share

    def _within_energy(self, power_w: Floats, dt_s: float) -> Floats:
        """Narrow power so that the cells stay between empty and full over the step."""
        homes = self.homes
        out_w = self.energy_wh * homes.efficiency_discharge * 3600 / dt_s
        room_wh = homes.capacity_wh - self.energy_wh
        in_w = room_wh / homes.efficiency_charge * 3600 / dt_s
        return np.clip(power_w, -in_w, out_w)

    def _integrate(self, dt_s: float) -> None:
        homes = self.homes
        out_wh = np.maximum(self.battery_w, 0.0) * dt_s / 3600
        in_wh = np.maximum(-self.battery_w, 0.0) * dt_s / 3600
        moved_wh = in_wh * homes.efficiency_charge - out_wh / homes.efficiency_discharge
        after_wh = np.clip(self.energy_wh + moved_wh, 0.0, homes.capacity_wh)
        lost_wh = np.minimum(homes.standby_w * dt_s / 3600, after_wh)
        reached_full = ~self.full & (after_wh >= homes.capacity_wh * (1 - 1e-9))
        self.energy_wh = after_wh - lost_wh
        self.charged_wh += in_wh
        self.discharged_wh += out_wh
        self.standby_wh += lost_wh
        soc_pct = self.true_soc_pct
        self.full = reached_full | (self.full & (soc_pct > 98.5))
        self.empty = (self.energy_wh <= 1e-6 * homes.capacity_wh) | (self.empty & (soc_pct < 1.5))
        drift_pct = self._error_gain * np.abs(moved_wh) / homes.capacity_wh * 100 + self._error_pct_per_h * dt_s / 3600
        bound_pct = self._error_pct_max
        self.error_pct = np.where(reached_full, 0.0, np.clip(self.error_pct + drift_pct, -bound_pct, bound_pct))
        self._warm(out_wh + in_wh, dt_s)

    def _warm(self, throughput_wh: Floats, dt_s: float) -> None:
        homes = self.homes
        heat_w = throughput_wh * 3600 / dt_s * (1 - homes.efficiency_discharge) + homes.standby_w
        outside_c = homes.ambient_c + 3.0 * math.sin(2 * math.pi * (self.time_s / DAY_S - 0.375))
        settled_c = outside_c + heat_w * THERMAL_S / (homes.capacity_wh * HEAT_J_PER_K_WH)
        self.temp_c = settled_c + (self.temp_c - settled_c) * math.exp(-dt_s / THERMAL_S)

    def _set_site_powers(self, load_w: Floats, pv_w: Floats) -> None:
        """Close the balance: curtail PV where it has nowhere to go, shed load where an island is short."""
        pv_w = np.minimum(pv_w, self._site_inverter_w)
        battery_w = self._per_site(self.battery_w)
        island = self._island_sites()
        room_w = np.maximum(0.0, load_w - np.where(island, battery_w, np.minimum(battery_w, 0.0)))
        self.site_pv_w = np.where(self._zero_export | island, np.minimum(pv_w, room_w), pv_w)
        supplied_w = self.site_pv_w + battery_w
        self.site_load_w = np.where(island, supplied_w, load_w)
        self.site_grid_w = np.where(island, 0.0, load_w - supplied_w)

    def _island_sites(self) -> Bools:
        island = np.zeros(self.homes.site_count, dtype=np.bool_)
        island[self._site[self.islanded]] = True
        return island

    def _discharge_room_w(self) -> Floats:
        pv_w = np.where(self._coupled, self.site_pv_w[self._site], 0.0)
        return np.minimum(self.discharge_limit_w(), np.maximum(0.0, self.homes.inverter_w_max - pv_w))

    def _estimate_pct(self) -> Floats:
        estimate: Floats = np.clip(self.true_soc_pct + self.error_pct, 0.0, 100.0)
        return estimate

    def _per_site(self, values: Floats) -> Floats:
        sums: Floats = np.bincount(self._site, weights=values, minlength=self.homes.site_count).astype(np.float64)
        return sums

    def _in_steps(self, values_wh: Floats) -> Floats:
        step_wh = self.homes.counter_step_wh
        in_steps: Floats = np.floor(values_wh / step_wh) * step_wh
        return in_steps
