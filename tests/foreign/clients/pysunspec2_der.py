"""pysunspec2: the models of a DER as SunSpec defines them. Its definitions give no direction to a power, so that it is
asked for the state of charge only."""

import asyncio
from typing import Any

import talk
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP


def scanned(host: str, port: int) -> dict[str, Any]:
    device = SunSpecModbusClientDeviceTCP(slave_id=1, ipaddr=host, ipport=port, timeout=5)
    device.scan()
    try:
        storage = device.models[713][0]
        storage.read()
        return {"soc_pct": storage.SoC.cvalue}
    finally:
        device.close()


async def read(host: str, port: int) -> dict[str, Any]:
    return await asyncio.to_thread(scanned, host, port)


talk.serve(read=read)
