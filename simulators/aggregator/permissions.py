"""What keys open. The names of the permissions are ours [?]."""

from dataclasses import dataclass
from enum import Enum


class Environment(Enum):
    """Keys are bound to one."""

    STAGING = "staging"
    PRODUCTION = "production"


class Permission(Enum):
    """What a key may do."""

    UPLOAD_INTERVALS = "upload_intervals"
    READ_UPLOADS = "read_uploads"
    SEARCH_MISSING = "search_missing"
    READ_DISPATCH = "read_dispatch"
    WRITE_WEBHOOKS = "write_webhooks"
    REGISTER_METER = "register_meter"
    GET_METER = "get_meter"
    DELETE_METER = "delete_meter"
    NOMINATE = "nominate"
    READ_REVENUE = "read_revenue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a key opens: by default everything of staging."""

    environment: Environment = Environment.STAGING
    permissions: frozenset[Permission] = frozenset(Permission)
