"""Every simulated product by the name of its profile."""

import shutil
from typing import Any

from simulators.faces.foxess_h1 import FoxessH1
from simulators.faces.foxess_h3 import FoxessH3
from simulators.faces.foxess_h3_smart import FoxessH3Smart
from simulators.faces.fronius_gen24 import FroniusGen24
from simulators.faces.goodwe_et import GoodweEt
from simulators.faces.hoymiles_ms_a2 import HoymilesMsA2
from simulators.faces.huawei_luna2000 import HuaweiLuna2000
from simulators.faces.plant import Face, Plant
from simulators.faces.sigenergy_plant import SigenergyPlant
from simulators.faces.sma_sbs import SmaSbs
from simulators.faces.solaredge_storedge import SolarEdgeStorEdge
from simulators.faces.sonnen_v1 import SonnenV1
from simulators.faces.sonnen_v2 import SonnenV2
from simulators.faces.sungrow_sh import SungrowSh
from simulators.faces.sunspec_der import SunSpecDer
from simulators.faces.tesla_powerwall import TeslaPowerwall
from simulators.faces.victron_gx_modbus import VictronGxModbus
from simulators.faces.victron_gx_mqtt import VictronGxMqtt

FACES: dict[str, type[Any]] = {
    FoxessH1.profile: FoxessH1,
    FoxessH3.profile: FoxessH3,
    FoxessH3Smart.profile: FoxessH3Smart,
    FroniusGen24.profile: FroniusGen24,
    GoodweEt.profile: GoodweEt,
    HoymilesMsA2.profile: HoymilesMsA2,
    HuaweiLuna2000.profile: HuaweiLuna2000,
    SigenergyPlant.profile: SigenergyPlant,
    SmaSbs.profile: SmaSbs,
    SolarEdgeStorEdge.profile: SolarEdgeStorEdge,
    SonnenV1.profile: SonnenV1,
    SonnenV2.profile: SonnenV2,
    SungrowSh.profile: SungrowSh,
    SunSpecDer.profile: SunSpecDer,
    TeslaPowerwall.profile: TeslaPowerwall,
    VictronGxModbus.profile: VictronGxModbus,
    VictronGxMqtt.profile: VictronGxMqtt,
}
ON_OUR_BROKER = frozenset({"hoymiles-ms-a2"})


def make_face(profile: str, plant: Plant, *, broker: tuple[str, int] | None = None, own_broker: str = "auto") -> Face:
    """The simulated product of `profile`. `broker` (host, port) for products that are clients of ours; `own_broker`:
    auto | mosquitto | standin, for one with a broker inside. Raises KeyError for a product without a simulator."""
    settings: dict[str, Any] = {}
    if profile in ON_OUR_BROKER:
        if broker is None:
            raise ValueError(f"{profile} is a client of our broker and needs one")
        settings["host"], settings["port"] = broker
    if profile == VictronGxMqtt.profile:
        settings["broker"] = own_broker
    if profile == TeslaPowerwall.profile:
        # Its certificate is made by openssl; without the program it speaks plain HTTP.
        settings["tls"] = shutil.which("openssl") is not None
    face: Face = FACES[profile](plant, **settings)
    return face
