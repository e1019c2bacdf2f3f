"""One battery as registered, and how it is reached."""

from dataclasses import dataclass

from gateway.domain.types import DeviceId


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConnection:
    """How to reach a device that the gateway connects to. `url` scheme://host[:port]; `units` Modbus unit ids by the
    profile's names where they differ, `parameters` what an installer writes down (topic levels, serial), `secret` a
    reference (`env:NAME`, `file:/path`), never the secret itself; "" = none."""

    url: str
    units: tuple[tuple[str, int], ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    username: str = ""
    secret: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One battery as registered: identity, ratings, permissions. `inverter_w_max` None = no inverter shared with PV.

    Site limits: None = unknown = not allowed; `math.inf` = unlimited. `site_phase_w_max` the most one phase of the
    meter may carry (None = no such limit is known), `phases` those the battery feeds. `fuse_protected`: a device in the
    home keeps its main fuse from being overloaded; without one it is not charged from the grid.
    `connection` None = the device connects to us.
    `experimental`: its operator allows control by facts of the profile that are neither verified nor documented.
    """

    id: DeviceId
    profile: str
    site: str
    feeder: str = ""
    tags: tuple[str, ...] = ()
    capacity_wh: float
    discharge_w_max: float
    charge_w_max: float
    inverter_w_max: float | None = None
    reserve_pct: float
    export_allowed: bool
    grid_charge_allowed: bool
    site_import_w_max: float | None = None
    site_export_w_max: float | None = None
    site_phase_w_max: float | None = None
    phases: int = 1
    fuse_protected: bool = False
    connection: DeviceConnection | None = None
    experimental: bool = False
