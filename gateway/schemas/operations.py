"""The operations of the REST interface: the method and the path of each, for the server, its document and its clients.

The routes under `api` say what each takes and answers. Nothing here needs a library: the command line starts with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote

from gateway import former_names


@dataclass(frozen=True, slots=True)
class Operation:
    """`path` with its parameters in braces."""

    method: str
    path: str

    def target(self, parameters: Mapping[str, str], query: str = "") -> str:
        """The path and query of a request: a parameter is one segment, whatever is in it."""
        path = self.path.format_map({name: quote(value, safe="") for name, value in parameters.items()})
        return f"{path}?{query}" if query else path

    @property
    def former(self) -> "Operation | None":
        """The same operation under its former path."""
        path = former_names.PATHS.get(self.path)
        return None if path is None else replace(self, path=path)


SUBMIT_EVENT = Operation("POST", "/v1/dispatch-events")
LIST_EVENTS = Operation("GET", "/v1/dispatch-events")
SHOW_EVENT = Operation("GET", "/v1/dispatch-events/{id}")
CANCEL_EVENT = Operation("DELETE", "/v1/dispatch-events/{id}")
LIFT_CANCELLATION = Operation("DELETE", "/v1/dispatch-events/{id}/cancellation")
STOP_ALL = Operation("POST", "/v1/dispatch/stop-all")
SET_EXCLUSION = Operation("POST", "/v1/exclusions")
PREVIEW_EXCLUSION = Operation("POST", "/v1/exclusions/preview")
IMPORT_EXCLUSIONS = Operation("POST", "/v1/exclusions/import")
LIST_EXCLUSIONS = Operation("GET", "/v1/exclusions")
LIFT_EXCLUSION = Operation("DELETE", "/v1/exclusions/{id}")
SHOW_QUARANTINE = Operation("GET", "/v1/quarantine")
TRUST = Operation("DELETE", "/v1/quarantine/{name}")
SHOW_AVAILABILITY = Operation("GET", "/v1/availability")
LIST_PROGRAMS = Operation("GET", "/v1/programs")
SHOW_PROGRAM = Operation("GET", "/v1/programs/{id}")
SHOW_FORECAST = Operation("GET", "/v1/programs/{id}/forecast")
SHOW_ALLOWED = Operation("GET", "/v1/programs/{id}/allowed")
SHOW_EVENT_PERFORMANCE = Operation("GET", "/v1/events/{id}/performance")
LIST_PROGRAM_PERFORMANCE = Operation("GET", "/v1/programs/{id}/performance")
LIST_AUDIT = Operation("GET", "/v1/audit")
VERIFY_AUDIT = Operation("GET", "/v1/audit/chain")
LIST_INTERVALS = Operation("GET", "/v1/intervals")
SHOW_COMPLETENESS = Operation("GET", "/v1/completeness")
LIST_SINKS = Operation("GET", "/v1/sinks")
LIST_MISSING = Operation("GET", "/v1/sinks/{name}/missing")
RESEND = Operation("POST", "/v1/sinks/{name}/resend")
RETRY = Operation("POST", "/v1/sinks/{name}/retry")
SHOW_LEAP = Operation("GET", "/v1/leap")
SHOW_LEAP_DISPATCH = Operation("GET", "/v1/leap/dispatch")
LEAP_CATCH_UP = Operation("POST", "/v1/leap/catch-up")
VERIFY_LEAP_WEBHOOKS = Operation("GET", "/v1/leap/webhooks")
REGISTER_LEAP_WEBHOOK = Operation("POST", "/v1/leap/webhooks")
SHOW_LEAP_ENROLLMENTS = Operation("GET", "/v1/leap/enrollments")
READ_LEAP_ENROLLMENTS = Operation("POST", "/v1/leap/enrollments")
LIST_NOMINATIONS = Operation("GET", "/v1/leap/nominations")
READ_NOMINATIONS = Operation("POST", "/v1/leap/nominations")
SUGGEST_NOMINATION = Operation("POST", "/v1/leap/nominations/suggestions")
LIST_SIGN_UPS = Operation("GET", "/v1/sign-ups")
SHOW_SIGN_UP = Operation("GET", "/v1/sign-ups/{id}")
LEAP_HINTED = Operation("POST", "/v1/signals/leap/platform")
LEAP_METERS_DISPATCHED = Operation("POST", "/v1/signals/leap/meter")
LEAP_GROUPS_DISPATCHED = Operation("POST", "/v1/signals/leap/group")
LIST_DEVICES = Operation("GET", "/v1/devices")
IMPORT_DEVICES = Operation("POST", "/v1/devices")
SHOW_DEVICE = Operation("GET", "/v1/devices/{id}")
REMOVE_DEVICE = Operation("DELETE", "/v1/devices/{id}")
LIST_CONNECTIONS = Operation("GET", "/v1/devices/{id}/connections")
LIST_DEPARTURES = Operation("GET", "/v1/departures")
ABANDON = Operation("DELETE", "/v1/departures/{id}")
LIST_RAW = Operation("GET", "/v1/raw-messages")
SHOW_RAW = Operation("GET", "/v1/raw-messages/{name}")
DISCARD_RAW = Operation("DELETE", "/v1/raw-messages/{name}")
LIST_ENROLLMENTS = Operation("GET", "/v1/enrollments")
IMPORT_ENROLLMENTS = Operation("POST", "/v1/enrollments")
SHOW_ENROLLMENT = Operation("GET", "/v1/enrollments/{id}")
SHOW_RATES = Operation("GET", "/v1/enrollments/{id}/rates")
LIST_PARTICIPATION = Operation("GET", "/v1/participation/{id}")
LIST_ELIGIBILITY = Operation("GET", "/v1/eligibility/{id}")
LIST_FACT_CHANGES = Operation("GET", "/v1/enrollment-changes/{id}")
LIST_DEADLINES = Operation("GET", "/v1/deadlines")
LIST_CUSTOMERS = Operation("GET", "/v1/customers")
IMPORT_CUSTOMERS = Operation("POST", "/v1/customers")
SHOW_CUSTOMER = Operation("GET", "/v1/customers/{id}")
ERASE_CUSTOMER = Operation("DELETE", "/v1/customers/{id}")
LIST_CONSENTS = Operation("GET", "/v1/consents")
IMPORT_CONSENTS = Operation("POST", "/v1/consents")
LIST_OUTBOX = Operation("GET", "/v1/outbox")
PROPOSE_CHANGES = Operation("POST", "/v1/outbox")
APPROVE_CHANGES = Operation("POST", "/v1/outbox/approvals")
WITHDRAW_CHANGES = Operation("POST", "/v1/outbox/withdrawals")
SEND_CHANGES = Operation("POST", "/v1/outbox/runs")
EXPLAIN_HOME = Operation("GET", "/v1/homes/{id}/explain")
LIST_CASES = Operation("GET", "/v1/cases")
OPEN_CASE = Operation("POST", "/v1/cases")
CHANGE_CASE = Operation("PATCH", "/v1/cases/{id}")
RECEIVE_WEBHOOK = Operation("POST", "/v1/signals/webhook/{name}")
LIST_WEBHOOKS = Operation("GET", "/v1/signals/webhook")
SHOW_WEBHOOK = Operation("GET", "/v1/signals/webhook/{name}")
LIST_UNREGISTERED = Operation("GET", "/v1/unregistered")
SHOW_READINESS = Operation("GET", "/readyz")
SHOW_LIFE = Operation("GET", "/healthz")
SCRAPE = Operation("GET", "/metrics")
