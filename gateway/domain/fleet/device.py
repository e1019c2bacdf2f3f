"""One battery as registered, and how it is reached."""

from dataclasses import dataclass, field

from gateway.domain.types import DeviceId


def means(text: str) -> dict[str, str]:
    """What an attribute means, for `docs/reference/fleet.md`."""
    return {"meaning": text}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConnection:
    """How to reach a device that the gateway connects to; "" = none."""

    url: str = field(metadata=means("Where the gateway connects to the device: scheme://host[:port]."))
    units: tuple[tuple[str, int], ...] = field(
        default=(), metadata=means("Modbus unit ids by the profile's names, where they differ from the profile's.")
    )
    parameters: tuple[tuple[str, str], ...] = field(
        default=(), metadata=means("What an installer writes down: topic levels, serial, fingerprint.")
    )
    username: str = field(default="", metadata=means("Name of the account on the device."))
    secret: str = field(
        default="", metadata=means("Reference to its secret: `env:NAME` or `file:/path`, never the secret itself.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One battery as registered: identity, ratings, permissions. Site limits: None = unknown = not allowed; `math.inf`
    = unlimited. `inverter_w_max` None = no inverter shared with PV, `site_phase_w_max` None = no such limit is known.
    `connection` None = the device connects to us."""

    id: DeviceId = field(metadata=means("The device, in every list, record and topic."))
    profile: str = field(metadata=means("The profile of its product."))
    site: str = field(metadata=means("The home: its devices share one meter."))
    meter: str = field(default="", metadata=means("What its utility calls the meter of its home; money goes by it."))
    feeder: str = field(default="", metadata=means("The feeder of its home; ceilings and recovery go by it."))
    postcode: str = field(default="", metadata=means("The postcode of its home; exclusions go by it."))
    county: str = field(default="", metadata=means("The county of its home; exclusions go by it."))
    utility: str = field(default="", metadata=means("The utility of its home; exclusions go by it."))
    tags: tuple[str, ...] = field(default=(), metadata=means("Groups that events and reports name."))
    capacity_wh: float = field(metadata=means("Usable energy."))
    discharge_w_max: float = field(metadata=means("Rating, on the AC side."))
    charge_w_max: float = field(metadata=means("Rating, on the AC side."))
    inverter_w_max: float | None = field(
        default=None, metadata=means("Rating of the inverter that it shares with PV; empty = it has one of its own.")
    )
    reserve_pct: float = field(metadata=means("What its owner keeps for an outage, of the usable energy."))
    export_allowed: bool = field(metadata=means("Whether it may discharge to the grid."))
    grid_charge_allowed: bool = field(metadata=means("Whether it may be charged from the grid."))
    site_import_w_max: float | None = field(
        default=None, metadata=means("The most that its home may take from the grid; empty = unknown = not allowed.")
    )
    site_export_w_max: float | None = field(
        default=None, metadata=means("The most that its home may give to the grid; empty = unknown = not allowed.")
    )
    site_phase_w_max: float | None = field(
        default=None, metadata=means("The most that one phase of the meter may carry; empty = not known.")
    )
    phases: int = field(default=1, metadata=means("How many phases the battery feeds."))
    fuse_protected: bool = field(
        default=False,
        metadata=means(
            "Something in the home keeps its main fuse from being overloaded; else no charging from the grid."
        ),
    )
    connection: DeviceConnection | None = None
    experimental: bool = field(
        default=False,
        metadata=means("Its operator lets facts of the profile that nobody has verified or documented control it."),
    )
