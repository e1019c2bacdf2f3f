"""aiovictron: the system service, battery power + = charge, grid L1 + = import. Reads only."""

from dataclasses import asdict
from typing import Any

import talk
from aiovictron import VictronClient


async def read(host: str, port: int) -> dict[str, Any]:
    async with VictronClient(host, port=port) as client:
        data = await client.get_data()
        system = asdict(data.system)
        return {
            "soc_pct": system["battery_soc"],
            "battery_w": -system["battery_power"],
            "grid_l1_w": system["grid_power_l1"],
            "pv_w": system["pv_power"],
            "services": sorted(found.device_type for found in data.discovered_devices),
            "vebus": None if data.vebus is None else asdict(data.vebus),
        }


talk.serve(read=read)
