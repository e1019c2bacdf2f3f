"""What the demo hands to the gateway: its configuration and the inventory of the homes."""

import csv
import json
from pathlib import Path
from typing import Any

import yaml

from simulators.homes import Floats, Homes, inventory_rows
from simulators.polled import PolledHomes

PROFILES = Path(__file__).parents[1] / "device_profiles"
CONNECTED = ("address", "parameters", "username", "secret")


def configuration(
    *,
    broker_port: int,
    http_port: int,
    receiver_url: str,
    interval_s: int,
    grace_s: int,
    fleet_w_per_s: float,
    release_spread_s: float,
) -> str:
    """The gateway's configuration file, with the state beside it."""
    config = {
        "state_dir": "state",
        "profiles_dir": str(PROFILES),
        "http": {"host": "127.0.0.1", "port": http_port, "token": "env:DEMO_TOKEN"},
        "log": {"format": "json", "level": "info"},
        "devices": {"mqtt": {"broker": _mqtt(broker_port, "gateway")}},
        "platform": {"broker": _mqtt(broker_port, "gateway-platform")},
        "sinks": [
            {"kind": "http", "name": "platform-http", "url": receiver_url, "timeout_s": 5},
            {"kind": "mqtt", "name": "platform-mqtt"},
        ],
        "intervals": {"length_s": interval_s, "grace_s": grace_s},
        "control": {
            "fleet_w_per_s": round(fleet_w_per_s),
            "release_spread_s": release_spread_s,
            "availability_s": 15,
            # batteries below the reserve charge up to it, but for a time that the verdict can wait for
            "maintenance": {"recovery_s": 20},
        },
    }
    # YAML is a superset of JSON.
    return json.dumps(config, indent=2)


def _mqtt(broker_port: int, client: str) -> dict[str, Any]:
    return {
        "url": f"mqtt://127.0.0.1:{broker_port}",
        "client_id": client,
        "keepalive_s": 5,
        "reconnect_base_s": 0.2,
        "reconnect_cap_s": 2,
    }


def write_inventory(directory: Path, homes: Homes, reserve_pct: Floats, polled: PolledHomes) -> Path:
    """The homes as a CSV file; polled ones with what it takes to reach them."""
    path = directory / "devices.csv"
    rows = inventory_rows(homes)
    levels = _topic_levels()
    for i, row in enumerate(rows):
        row["reserve_pct"] = f"{reserve_pct[i]:g}"
        row |= dict.fromkeys(CONNECTED, "") | {"experimental": "false"}
        if i in polled.faces:
            row |= polled.inventory(i, levels)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def _topic_levels() -> dict[str, list[str]]:
    """Topic levels that each profile wants enrollment to give."""
    out: dict[str, list[str]] = {}
    for path in PROFILES.glob("*.yaml"):
        section = yaml.safe_load(path.read_text(encoding="utf-8")).get("mqtt") or {}
        out[path.stem] = list(section.get("variables", ()))
    return out
