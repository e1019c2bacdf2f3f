"""Names that were other ones until November 2026, for files and peers that know only those.

Stored files go on being written with the former names and are read with both, so that the release before this one can
take a state directory back; the next release writes the new ones. What is public (paths, members, commands, keys of the
configuration and of profiles) is served under both names until then. Nothing else may use a former name.
"""

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

CHECKPOINT_COLUMNS: Mapping[str, str] = {
    "control/authority": "control/held",
    "control/exclusions": "control/bars",
}
"""Columns of a checkpoint by their name in the code: what a file calls them."""

AUTHORITIES: Mapping[str, str] = {"device": "free", "owner": "left"}
"""Who has a device, as REST (`held`) and the metric `gateway_devices_held` say it."""


def written(name: str) -> str:
    """What a stored file calls a column."""
    return CHECKPOINT_COLUMNS.get(name, name)


def read(columns: Mapping[str, Value], name: str) -> Value | None:
    """A column of a stored file, whichever of its names it has there."""
    return columns.get(name, columns.get(written(name)))


def authority(name: str) -> str:
    """Who has a device, in the former word."""
    return AUTHORITIES.get(name, name)
