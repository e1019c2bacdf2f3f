"""Names that were different before November 2026, for files and peers that know only the former ones.

Stored files are still written with the former names and are read with both, so that release 0.1 can take a state
directory back; the release after this one writes the new names. Whatever is public is served under both names until
then: OpenAPI marks a former path as deprecated, the command line hides a former command, and `gateway validate` and
`gateway run` warn about a former key in the configuration or in a profile. Nothing else may use a former name.

| public name | former name |
|---|---|
| REST `/v1/exclusions`, `/v1/exclusions/{id}`, member `exclusions` | `/v1/holds`, `/v1/holds/{id}`, member `holds` |
| REST `/v1/unregistered` | `/v1/unenrolled` |
| REST member `authority` of a device (`device`, `owner`) | `held` (`free`, `left`) |
| value `excluded` of `failure` in delivery records: from the next release on | `barred` |
| metric `gateway_devices_authority` | `gateway_devices_held` |
| `gateway exclusions`, `gateway intervals completeness` | `gateway holds`, `gateway intervals ledger` |
| `gateway devices unregistered` | `gateway devices unenrolled` |
| configuration `control.maintenance` | `control.upkeep` |
| configuration `programs.NAME.interval_length_s` | `intervals.programs.NAME.length_s` |
| configuration `programs.NAME.ceiling_mw` | `control.programs.NAME.ceiling_mw` |
| profiles `facts.command_latency_s` | `facts.delivery_s` |
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")

CHECKPOINT_COLUMNS: Mapping[str, str] = {
    "control/authority": "control/held",
    "control/exclusions": "control/bars",
}
"""Columns of a checkpoint by their name in the code: what a file calls them."""

AUTHORITIES: Mapping[str, str] = {"device": "free", "owner": "left"}
"""Who has a device, as REST (`held`) and the metric `gateway_devices_held` say it."""

FAILURES: Mapping[str, str] = {"excluded": "barred"}
"""Why a delivery record failed, as REST and the platform's reports say it until the next release: one member has one
value."""

SERVICES: Mapping[str, str] = {"clock_guard": "timekeeper"}
"""Services, as the label `service` of metrics and `/readyz` name them."""

PATHS: Mapping[str, str] = {
    "/v1/exclusions": "/v1/holds",
    "/v1/exclusions/{id}": "/v1/holds/{id}",
    "/v1/unregistered": "/v1/unenrolled",
}
"""REST paths: the former path answers as it did in 0.1."""

MEMBERS: Mapping[str, str] = {"exclusions": "holds"}
"""Members of bodies on former paths."""

SCHEMAS: Mapping[str, str] = {
    "ExclusionBody": "HoldBody",
    "ExclusionState": "HoldState",
    "ExclusionList": "HoldList",
    "UnregisteredList": "Unenrolled",
}
"""Schemas of bodies, as the OpenAPI document names them on former paths."""

COMMANDS: Mapping[str, str] = {"exclusions": "holds", "completeness": "ledger", "unregistered": "unenrolled"}
"""Commands and groups of the command line."""

CONFIGURATION: Mapping[tuple[str, ...], str] = {("control", "maintenance"): "upkeep"}
"""Keys of the configuration by their path: the former last part."""

PROGRAMS: Mapping[str, Mapping[str, str]] = {
    "intervals": {"length_s": "interval_length_s"},
    "control": {"ceiling_mw": "ceiling_mw"},
}
"""Sections of the configuration that had a block `programs` of their own: what its keys are now called in the block at
the top."""

PROFILE: Mapping[tuple[str, ...], str] = {("facts", "command_latency_s"): "delivery_s"}
"""Keys of a profile by their path: the former last part."""


def written(name: str) -> str:
    """What a stored file calls a column."""
    return CHECKPOINT_COLUMNS.get(name, name)


def read(columns: Mapping[str, Value], name: str) -> Value | None:
    """A column of a stored file, whichever of its names it has there."""
    return columns.get(name, columns.get(written(name)))


def authority(name: str) -> str:
    """Who has a device, in the former word."""
    return AUTHORITIES.get(name, name)


def failure(name: str | None) -> str | None:
    """Why a delivery record failed, in the former word."""
    return None if name is None else FAILURES.get(name, name)


def used(document: object, keys: Mapping[tuple[str, ...], str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The paths of former keys that a document uses, each with a warning in words."""
    for path, former in keys.items():
        here: object = document
        for part in path[:-1]:
            here = here.get(part) if isinstance(here, Mapping) else None
        if isinstance(here, Mapping) and former in here and path[-1] not in here:
            yield (*path[:-1], former), f"the next release knows this key only as {path[-1]}"


def refusal(where: Sequence[int | str], kind: str, keys: Mapping[tuple[str, ...], str]) -> str | None:
    """What is wrong where a validator refused the key at `where` as one that it does not know, if that is a former key
    that stands beside its new name; None for every other fault. `kind` is the validator's own word for the fault."""
    if kind != "extra_forbidden":
        return None
    new = next((path[-1] for path, former in keys.items() if (*path[:-1], former) == tuple(where)), None)
    return None if new is None else f"the former name of {new}, which is given too; keep {new} alone"
