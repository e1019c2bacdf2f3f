"""pysunspec2: the models of a DER as SunSpec defines them, where active power is "positive for DER generation and
negative for absorption", and the level that is set "may be negative for charging"."""

import asyncio
from typing import Any

import talk
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP

WATTS = 1


def scanned(host: str, port: int) -> SunSpecModbusClientDeviceTCP:
    device = SunSpecModbusClientDeviceTCP(slave_id=1, ipaddr=host, ipport=port, timeout=5)
    device.scan()
    return device


def told(host: str, port: int) -> dict[str, Any]:
    device = scanned(host, port)
    try:
        measured, storage = device.models[701][0], device.models[713][0]
        measured.read()
        storage.read()
        return {"soc_pct": storage.SoC.cvalue, "battery_w": measured.W.cvalue}
    finally:
        device.close()


def set_level(host: str, port: int, power_w: float | None) -> dict[str, Any]:
    """None = the function is disabled."""
    device = scanned(host, port)
    try:
        control = device.models[704][0]
        control.read()
        if power_w is not None:
            control.WSetMod.value = WATTS
            control.WSetRvrtTms.value = 60
            control.WSet.cvalue = power_w
        control.WSetEna.value = int(power_w is not None)
        control.write()
        return {}
    finally:
        device.close()


async def read(host: str, port: int) -> dict[str, Any]:
    return await asyncio.to_thread(told, host, port)


async def steer(host: str, port: int, power_w: float) -> dict[str, Any]:
    return await asyncio.to_thread(set_level, host, port, power_w)


async def release(host: str, port: int) -> dict[str, Any]:
    return await asyncio.to_thread(set_level, host, port, None)


talk.serve(read=read, steer=steer, release=release)
