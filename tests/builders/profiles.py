"""Small made-up products, one per transport, as text; `changed` gives a copy of one with something else in it."""

from collections.abc import Callable
from typing import Any

import yaml

from gateway.profiles.compile import Codec, compile_profile
from gateway.profiles.loader import parse_profile

FACTS = """
facts:
  {command_latency_s: 5, efficiency_discharge: 0.95, efficiency_charge: 0.95, standby_w: 30, soc_uncertainty_pct: 5}
"""

MODBUS = f"""
language: 1
profile: sample-modbus
maker: Sample
product: Modbus battery
evidence: {{tag: documented, source: made up for tests}}
transport: modbus
{FACTS}
watchdog:
  kind: device_timer
  lease_s: 120
  falls_back_to: self_consumption
  point: timeout
  zero_means: never
  reverts_within_s: 180
modbus:
  units: {{main: 1, meter: 30}}
  forbidden: [[200, 209]]
identity:
  serial: serial
  rules:
    - {{point: serial, begins: [SM]}}
points:
  serial: {{register: 10, words: 8, type: text, poll: once}}
  power_sf: {{register: 102, type: i16}}
  battery_power: {{register: 100, type: i16, scale_factor: power_sf, unit: W, range: [-20000, 20000]}}
  soc: {{register: 101, type: u16, scale: 0.1, unit: "%", sentinels: [65535]}}
  grid_power: {{register: 300, unit_id: meter, type: i32, unit: W}}
  work_mode:
    {{register: 400, type: u16, access: rw, storage: stored, writes_per_day_max: 50, poll: slow}}
  setpoint:
    {{register: 410, type: i32, unit: W, sign: charge_positive, range: [-5000, 5000], access: rw, storage: volatile}}
  timeout: {{register: 412, type: u16, unit: s, access: rw, storage: volatile}}
readings:
  battery_w: {{point: battery_power, sign: charge_positive, measured_at: battery_ac, range: [-20000, 20000]}}
  soc_pct: {{point: soc, range: [0, 100]}}
  grid_w: {{point: grid_power, sign: export_positive, measured_at: grid_connection, range: [-50000, 50000]}}
  mode:
    cases:
      - {{when: [{{point: work_mode, equals: [4]}}], value: remote}}
    otherwise: self_consumption
  faults:
    any:
      - {{point: work_mode, any_bits: 256}}
control:
  domain: battery_ac
  saves: [work_mode]
  switch_first: a made-up reason
  begin:
    - {{write: work_mode, value: 4, if_changed: true}}
  discharge: &no_alias
    - together:
        - {{write: setpoint, from: setpoint_w}}
        - {{write: timeout, from: lease}}
  charge:
    - together:
        - {{write: setpoint, from: setpoint_w}}
        - {{write: timeout, from: lease}}
  hold:
    - together:
        - {{write: setpoint, value: 0}}
        - {{write: timeout, from: lease}}
  release:
    - {{write: setpoint, value: 0}}
    - {{restore: work_mode, or_value: 0}}
  apart: [[work_mode, setpoint]]
""".replace(" &no_alias", "")

HTTP = f"""
language: 1
profile: sample-http
maker: Sample
product: HTTP battery
evidence: {{tag: documented, source: made up for tests}}
transport: http
{FACTS}
http:
  port: 8443
  tls: unverified
  auth: {{kind: header, name: Auth-Token}}
identity:
  rules:
    - {{point: kind, equals: [battery]}}
points:
  kind: {{path: /api/info, pointer: /kind, type: text, poll: once}}
  power: {{path: /api/status, pointer: /power, type: number, unit: W}}
  soc: {{path: /api/status, pointer: /soc, type: number, unit: "%"}}
  reserve:
    {{path: /api/config, pointer: /reserve, as_text: true, type: integer, unit: "%", access: rw, storage: stored,
     writes_per_day_max: 20, poll: slow, write: {{method: PUT, path: /api/config, key: reserve, as_text: true}}}}
readings:
  battery_w: {{point: power, sign: discharge_positive, measured_at: battery_ac, range: [-20000, 20000]}}
  soc_pct: {{point: soc, range: [0, 100]}}
  reserve_pct: {{point: reserve, range: [0, 100]}}
control:
  domain: battery_ac
  reserve:
    - {{write: reserve, from: reserve_pct, if_changed: true}}
"""

MQTT = f"""
language: 1
profile: sample-mqtt
maker: Sample
product: MQTT battery
evidence: {{tag: experimental, source: made up for tests}}
transport: mqtt
{FACTS}
watchdog: {{kind: implicit, lease_s: 60, falls_back_to: self_consumption, reverts_within_s: 90}}
mqtt:
  broker: device
  variables: [portal]
  quiet_s: 30
  keepalive: {{topic: "R/{{portal}}/keepalive", every_s: 30}}
identity:
  rules:
    - {{point: product, begins: [GX]}}
points:
  product: {{topic: "N/{{portal}}/product", pointer: /value, type: text, poll: once}}
  power: {{topic: "N/{{portal}}/power", pointer: /value, type: number, unit: W, "null": unknown, empty: gone}}
  soc: {{topic: "N/{{portal}}/soc", pointer: /value, type: number, unit: "%"}}
  setpoint:
    {{type: number, unit: W, sign: charge_positive, access: w, storage: volatile,
     write: {{topic: "W/{{portal}}/setpoint", key: value}}}}
readings:
  battery_w: {{point: power, sign: charge_positive, measured_at: battery_dc, range: [-20000, 20000]}}
  soc_pct: {{point: soc, range: [0, 100]}}
control:
  domain: battery_dc
  stop_only: true
  discharge: [{{write: setpoint, from: setpoint_w}}]
  charge: [{{write: setpoint, from: setpoint_w}}]
  hold: [{{write: setpoint, value: 0}}]
"""
SAMPLES = {"sample-modbus": MODBUS, "sample-http": HTTP, "sample-mqtt": MQTT}


def changed(text: str, change: Callable[[dict[str, Any]], object]) -> str:
    """The sample with `change` made to its document."""
    raw = yaml.safe_load(text)
    change(raw)
    return yaml.safe_dump(raw, sort_keys=False)


def compiled(text: str) -> Codec:
    return compile_profile(parse_profile(text, name="sample.yaml"))
