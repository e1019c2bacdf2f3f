"""tesla-powerwall: the gateway's local API; battery + = discharge, site + = import. It only reads."""

import ssl
from typing import Any

import aiohttp
import talk
from tesla_powerwall import Powerwall


async def read(host: str, port: int, password: str) -> dict[str, Any]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), cookie_jar=jar) as session,
        Powerwall(f"https://{host}:{port}/api/", http_session=session, verify_ssl=False) as wall,
    ):
        await wall.login(password)
        meters = await wall.get_meters()
        batteries = await wall.get_batteries()
        return {
            "soc_pct": await wall.get_charge(),
            "battery_w": meters.battery.instant_power,
            "grid_w": meters.site.instant_power,
            "load_w": meters.load.instant_power,
            "pv_w": meters.solar.instant_power,
            "reserve_pct": await wall.get_backup_reserve_percentage(),
            "mode": (await wall.get_operation_mode()).name,
            "grid": (await wall.get_grid_status()).name,
            "capacity_wh": await wall.get_capacity(),
            "type": (await wall.get_device_type()).name,
            "version": await wall.get_version(),
            "din": await wall.get_gateway_din(),
            "serials": await wall.get_serial_numbers(),
            "vin": await wall.get_vin(),
            "solars": len(await wall.get_solars()),
            "batteries": len(batteries),
            "running": (await wall.get_sitemaster()).is_running,
            "site": (await wall.get_site_info()).site_name,
        }


talk.serve(read=read)
