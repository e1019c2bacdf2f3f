"""The configuration that the demo gives to the gateway."""

import json
from typing import Any

from simulators.inventory import PROFILES


def configuration(
    *,
    broker_port: int,
    http_port: int,
    receiver_url: str,
    interval_s: int,
    grace_s: int,
    fleet_w_per_s: float,
    release_spread_s: float,
    programs_dir: str,
) -> str:
    """The gateway's configuration file, with the state beside it."""
    config = {
        "state_dir": "state",
        "profiles_dir": str(PROFILES),
        "programs_dir": programs_dir,
        "money": {"every_s": 2},
        "http": {"host": "127.0.0.1", "port": http_port, "token": "env:DEMO_TOKEN"},
        "log": {"format": "json", "level": "info"},
        "devices": {"mqtt": {"broker": mqtt_broker(broker_port, "gateway")}},
        "platform": {"broker": mqtt_broker(broker_port, "gateway-platform")},
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


def mqtt_broker(broker_port: int, client: str) -> dict[str, Any]:
    return {
        "url": f"mqtt://127.0.0.1:{broker_port}",
        "client_id": client,
        "keepalive_s": 5,
        "reconnect_base_s": 0.2,
        "reconnect_cap_s": 2,
    }
