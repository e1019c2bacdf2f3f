"""A meter as the aggregator wants it to be created or changed, and what it says of one.

A row of the outbox has the members of a meter by their place, with dots: `device.battery_energy_capacity_kwh`. Who the
customer is stands in no row: `customer` is a reference, and the personal data is put in its place when a row is sent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.domain.programs.outbox import WriteState

CUSTOMER = "customer"
REFERENCE = "partner_customer_reference"
ACCOUNT = "electric_service_account_number"
FACTS = frozenset({"transmission_region", "customer_classification", "load_types", "meter_type", "customer_group"})
BLOCKS = frozenset({"device", "site", "caiso", "isone", "nyiso", "utility"})
PERSONAL = frozenset({ACCOUNT, "utility_meter_serial_number"})
NEEDED = frozenset({"transmission_region", "customer_classification", "load_types", "meter_type", CUSTOMER})
RENAMED = {
    "max_energy_production_rate_kw": "battery_max_discharge_rate_kw",
    "max_energy_consumption_rate_kw": "battery_max_charge_rate_kw",
    "pv_connected": "is_connected_to_solar",
}
"""Names that the aggregator had until July 2026: it may answer with them."""

STATES = {
    "PROCESSING": WriteState.WAITS,
    "COMPLETED": WriteState.DONE,
    "FAILED": WriteState.REFUSED,
    "DUPLICATE": WriteState.REFUSED,
    "MULTIPLE_PARTNER_REFERENCE": WriteState.REFUSED,
}
"""What the status of one meter of a job means. One that is not known waits, and is shown."""


def faults(subject: str, after: Mapping[str, Any]) -> list[str]:
    """What is wrong with a row, without a value of it."""
    found = [f"{subject}: {name}: required" for name in sorted(NEEDED - after.keys())]
    for name in after:
        block, dot, member = name.partition(".")
        if member in PERSONAL:
            found.append(f"{subject}: {name}: personal data stands in the table of customers")
        elif not (name in FACTS or name == CUSTOMER or (dot and block in BLOCKS and member)):
            found.append(f"{subject}: {name[:64]}: no member of a meter")
    return found


def asset(subject: str, after: Mapping[str, Any], person: Mapping[str, str]) -> dict[str, Any]:
    """The meter as it is sent. `person`: who the customer is."""
    made: dict[str, Any] = {"partner_reference": subject}
    for name, value in after.items():
        if name == CUSTOMER:
            continue
        block, dot, member = name.partition(".")
        if dot:
            made.setdefault(block, {})[member] = value
        else:
            made[name] = value
    known = {name: value for name, value in person.items() if name != ACCOUNT}
    made[CUSTOMER] = {"country_code": "US"} | known | {REFERENCE: after[CUSTOMER]}
    if ACCOUNT in person:
        made.setdefault("utility", {})[ACCOUNT] = person[ACCOUNT]
    return made


def content(details: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """What the aggregator has of the members that a row names."""
    found: dict[str, Any] = {}
    for name in wanted:
        block, dot, member = name.partition(".")
        if name == CUSTOMER:
            value = _inside(details, CUSTOMER).get(REFERENCE)
        elif dot:
            inside = {RENAMED.get(key, key): one for key, one in _inside(details, block).items()}
            value = inside.get(member)
        else:
            value = details.get(name)
        if value is not None:
            found[name] = value
    return found


def _inside(details: Mapping[str, Any], block: str) -> Mapping[str, Any]:
    found = details.get(block)
    return found if isinstance(found, Mapping) else {}


def told(status: Mapping[str, Any]) -> tuple[WriteState, str]:
    """What became of one meter of a job, and why, in the aggregator's words, without values that may be personal."""
    word = status.get("status")
    state = STATES.get(word, WriteState.WAITS) if isinstance(word, str) else WriteState.WAITS
    detail = status.get("status_detail")
    inside: Mapping[str, Any] = detail if isinstance(detail, Mapping) else {}
    fields = inside.get("failed_fields")
    names = sorted(map(str, fields)) if isinstance(fields, Mapping) else []
    said = [str(word)[:64], str(inside.get("name") or "")[:64], ", ".join(names)[:512]]
    return state, "" if state is WriteState.DONE else ": ".join(part for part in said if part)
