"""Homes of a fleet whose products are polled: a face each on its own socket, on the fleet's physics and clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from simulators.faces.catalogue import FACES, make_face
from simulators.faces.plant import Connection, Face, Plant
from simulators.firmware import FirmwareFleet

BY_SILENCE = frozenset({"sma-sbs", "victron-gx-modbus"})
TOKEN_VARIABLE = "DEVICE_TOKEN_{index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """One polled home: its place in the fleet, its face, how it is reached."""

    index: int
    face: Face
    connection: Connection


def places(devices: int, each: int, products: int = len(FACES)) -> range:
    """Which homes of a fleet are polled: the last ones, product after product."""
    return range(devices - min(each * products, devices // 2), devices)


class PolledHomes:
    """The last homes of the fleet, `each` of every product. They leave the firmware's protocol and get their own."""

    def __init__(
        self, fleet: FirmwareFleet, *, each: int, broker_url: str, products: Sequence[str] = tuple(FACES)
    ) -> None:
        self._fleet = fleet
        self.indices = list(places(len(fleet.devices.homes), each, len(products)))
        parts = urlsplit(broker_url)
        broker = (parts.hostname or "127.0.0.1", parts.port or 1883)
        batteries = fleet.devices.batteries
        self.faces: dict[int, Face] = {
            index: make_face(products[k % len(products)], Plant(batteries, index), broker=broker)
            for k, index in enumerate(self.indices)
        }
        self.connections: dict[int, Connection] = {}
        fleet.devices.elsewhere[self.indices] = True
        fleet.before_step = self.step

    @property
    def slow(self) -> list[int]:
        """Homes that are released by silence alone, a minute after the last word."""
        return [index for index, face in self.faces.items() if face.profile in BY_SILENCE]

    @property
    def products(self) -> list[str]:
        return sorted({face.profile for face in self.faces.values()})

    async def start(self) -> None:
        """Listen on every socket."""
        for index, face in self.faces.items():
            self.connections[index] = await face.start()

    async def stop(self) -> None:
        for face in self.faces.values():
            await face.stop()

    def step(self, dt_s: float) -> None:
        """Run every product's timers; who is under control is what the products say."""
        in_force = self._fleet.devices.reported.command_in_force
        for index, face in self.faces.items():
            face.step(dt_s)
            in_force[index] = int(face.controlled)

    def environment(self) -> dict[str, str]:
        """The secrets of the products, as the gateway's environment has them."""
        return {
            TOKEN_VARIABLE.format(index=index): connection.token
            for index, connection in self.connections.items()
            if connection.token
        }

    def inventory(self, index: int, variables: Mapping[str, Sequence[str]]) -> dict[str, str]:
        """Cells of the home's inventory row. `variables`: the topic levels each profile asks for."""
        face, connection = self.faces[index], self.connections[index]
        wanted = variables.get(face.profile, ())
        parameters = [f"{name}={value}" for name, value in connection.parameters.items() if name in wanted]
        return {
            "profile": face.profile,
            "address": "" if wanted == ["device"] else connection.url,
            "parameters": ";".join(parameters),
            "username": connection.username,
            "secret": f"env:{TOKEN_VARIABLE.format(index=index)}" if connection.token else "",
            "experimental": "true",
        }

    def under_control(self) -> int:
        return int(np.count_nonzero([face.controlled for face in self.faces.values()]))
