"""The files of the aggregator's evening: the gateway's configuration, its inventory and its table of meters."""

import csv
import json
from pathlib import Path

from simulators.demo_files import mqtt_broker
from simulators.evening_street import QUARTER_TAG, Street
from simulators.inventory import PROFILES

TOKEN, KEY, SECRET = "evening-token-0123456789", "key-of-the-aggregator", "shared-secret-of-the-webhooks"
ENVIRONMENT = {"EVENING_TOKEN": TOKEN, "LEAP_API_KEY": KEY, "LEAP_WEBHOOK_SECRET": SECRET}
INVENTORY, METERS = "devices.csv", "leap-meters.csv"
PROGRAMS = Path(__file__).parents[1] / "config" / "programs"
RAMP = 0.35
"""The governor lets all batteries go from nothing to everything within this part of an hour of the story."""


def governor_w_per_s(street: Street, hour_s: float) -> float:
    return round(float(street.homes.discharge_w_max.sum()) / (RAMP * hour_s))


def write(
    directory: Path, street: Street, *, config: Path, broker_port: int, http_port: int, receiver_url: str,
    aggregator_url: str, interval_s: int, grace_s: int, hour_s: float,
) -> None:  # fmt: skip
    """Write all of them into a directory."""
    rows = street.inventory()
    with (directory / INVENTORY).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    lines = [f"{street.homes.ids[i]},{street.device_meters[i]}\n" for i in street.uploading]
    (directory / METERS).write_text("".join(["device,meter_id\n", *lines]), encoding="utf-8")
    settings = {
        "state_dir": "state",
        "profiles_dir": str(PROFILES),
        "programs_dir": str(PROGRAMS),
        "http": {"host": "127.0.0.1", "port": http_port, "token": "env:EVENING_TOKEN"},
        "log": {"format": "json", "level": "info"},
        "devices": {"mqtt": {"broker": mqtt_broker(broker_port, "gateway")}},
        "platform": {"broker": mqtt_broker(broker_port, "gateway-platform")},
        "leap": {"account": {"environment": "staging", "url": aggregator_url, "key": "env:LEAP_API_KEY"}},
        "signals": {
            "leap": {
                "secret": "env:LEAP_WEBHOOK_SECRET", "url": f"http://127.0.0.1:{http_port}", "search_every_s": 60,
            }
        },
        "programs": {
            "dsgs-option3": {"dispatchers": ["leap"]},
            "ra-leap": {"dispatchers": ["leap"]},
            QUARTER_TAG: {"interval_length_s": 900},
        },
        "sinks": [
            {"kind": "http", "name": "platform-http", "url": receiver_url, "timeout_s": 5},
            {"kind": "mqtt", "name": "platform-mqtt"},
            {
                "kind": "leap_csv", "name": "leap", "url": aggregator_url, "token": "env:LEAP_API_KEY",
                "meters": METERS, "poll_s": 0.2, "gather_s": 0,
            },
        ],
        "intervals": {"length_s": interval_s, "grace_s": grace_s},
        "control": {
            "fleet_w_per_s": governor_w_per_s(street, hour_s),
            "release_spread_s": 4,
            "availability_s": 15,
            "maintenance": {"recovery_s": 5},
        },
    }  # fmt: skip
    config.write_text(json.dumps(settings, indent=2), encoding="utf-8")
