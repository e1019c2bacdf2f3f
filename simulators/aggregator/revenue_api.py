"""Revenue aggregations and versions, and unresponsive meters (sections 9, 10): rows that a test put in, paged.

The next token is called `page_token` here. Months are inclusive at both ends, three at most. Rows are not checked
beyond their key and their dates, since a client has to read what it knows of them.
"""

from datetime import date
from typing import Any

from simulators.aggregator.contract import BOOL, TEXT, Body, JsonSchema, Shape, array, enum, record
from simulators.aggregator.meter_shapes import REGION
from simulators.aggregator.paging import Tokens
from simulators.aggregator.permissions import Permission
from simulators.aggregator.refusal import Refused
from simulators.aggregator.service import CSV, Call, Reply, Route, Service, canonical, json_body, query
from simulators.aggregator.switches import Mischief, Operation

PAGE = 100
PERIODIC = "/v1.1/revenue/periodic"
UNRESPONSIVE = "/v1.1/performance/diagnosis/monthly/unresponsive/meters"
KINDS = {
    "customer": ("customers", "customer_name"),
    "load-type": ("load_types", "load_type"),
    "market-group": ("market_groups", "market_group"),
    "meter": ("meters", "meter_id"),
    "utility": ("utilities", "utility"),
}
Doc = dict[str, Any]

MONTH: JsonSchema = {"type": "string", "pattern": r"^\d{4}-(0[1-9]|1[0-2])$"}
SIZE: JsonSchema = {"type": "integer", "minimum": 1, "maximum": 1000}
VERSION: JsonSchema = {"type": "string", "pattern": r"^V.+"}
PAIRS = array(record("program meter_id", program=TEXT, meter_id=TEXT), maxItems=100)
AGGREGATION = Shape(
    "revenue aggregation",
    record(
        "period_start period_end",
        period_start=MONTH,
        period_end=MONTH,
        page_size=SIZE,
        page_token=TEXT,
        programs=array(TEXT),
        filters=array(TEXT),
        version=VERSION,
    ),
)
VERSIONS_QUERY = Shape(
    "revenue versions", record("period_start period_end", period_start=MONTH, period_end=MONTH, programs=TEXT)
)
UNRESPONSIVE_SEARCH = Shape(
    "unresponsive meters",
    record(
        "year_month",
        year_month=MONTH,
        meter_id_contains=TEXT,
        partner_reference_contains=TEXT,
        customer_name_contains=TEXT,
        transmission_regions=array(REGION),
        programs=array(TEXT),
        historical_responsiveness=array(enum("NEVER_RESPONDS", "RARELY_RESPONDS", "NORMALLY_RESPONDS", "NEW_METER")),
        include_meter_programs=PAIRS,
        exclude_meter_programs=PAIRS,
        page_token=TEXT,
        page_size=SIZE,
        sort=array(record("field direction", field=TEXT, direction=enum("ASC", "DESC"))),
    ),
)
ROWS = Shape("revenue rows", record(page_token=TEXT))
VERSIONS = Shape(
    "revenue versions",
    array(record("version updated_at settlement_period", version=TEXT, updated_at=TEXT, settlement_period=record())),
)
SUMMARY_QUERY = Shape("unresponsive meters query", record(include_summary=BOOL))


class RevenueApi:
    """`rows` by kind of aggregation; `versions` and `unresponsive` as they are sent."""

    def __init__(self, mischief: Mischief) -> None:
        self.rows: dict[str, list[Doc]] = {kind: [] for kind in KINDS}
        self.versions: list[Doc] = []
        self.unresponsive: dict[str, list[Doc]] = {}
        self._mischief = mischief
        self._tokens = Tokens()

    def service(self) -> Service:
        """What the server mounts."""
        rows = (
            ("POST", PERIODIC + "/aggregation/{kind}/search", Operation.REVENUE_AGGREGATION, self._aggregation),
            ("GET", PERIODIC + "/versions", Operation.REVENUE_VERSIONS, self._versions),
            ("POST", UNRESPONSIVE, Operation.UNRESPONSIVE, self._unresponsive),
        )
        routes = tuple(
            Route(method=method, path=path, operation=operation, permission=Permission.READ_REVENUE, handler=handler)
            for method, path, operation, handler in rows
        )
        prefixes = ("/v1.1/revenue", "/v1.1/performance")
        return Service(name="revenue", prefixes=prefixes, routes=routes, envelope=envelope)

    def _aggregation(self, call: Call) -> Reply:
        kind = call.ids["kind"]
        if kind not in KINDS:
            raise Refused(400, "aggregation is not known", aggregation=kind)
        asked = json_body(call, AGGREGATION)
        _months(asked)
        name, key = KINDS[kind]
        first, last = asked["period_start"], asked["period_end"]
        found = [
            row
            for row in self.rows[kind]
            if first <= str(row["delivery_start_date"])[:7] <= last
            and _starts(str(row[key]), asked.get("filters"))
            and ("programs" not in asked or row.get("program") in (None, *asked["programs"]))
            and ("version" not in asked or row.get("version") == asked["version"])
        ]
        return self._listed(call, kind, name, asked, found)

    def _versions(self, call: Call) -> Reply:
        asked = query(call, VERSIONS_QUERY)
        _months(asked)
        return Reply(json=self.versions, body=VERSIONS)

    def _unresponsive(self, call: Call) -> Reply:
        with_summary = query(
            Call(query=call.query, headers=call.headers, body=b"", unknown=call.unknown), SUMMARY_QUERY
        ).get("include_summary", False)
        asked = json_body(call, UNRESPONSIVE_SEARCH)
        found = [row for row in self.unresponsive.get(asked["year_month"], []) if _suits(row, asked)]
        for order in reversed(asked.get("sort", [])):
            found.sort(key=lambda row: _sortable(row, order["field"]), reverse=order["direction"] == "DESC")
        reply = self._listed(call, "unresponsive", "meters", asked, found)
        if reply.json is None:
            return reply
        summary = {"summary": {"number_of_meters": len({row["meter_id"] for row in found})}} if with_summary else {}
        return Reply(json=reply.json | {"year_month": asked["year_month"]} | summary, body=ROWS)

    def _listed(self, call: Call, what: str, name: str, asked: Doc, found: list[Doc]) -> Reply:
        accept = call.headers.get("Accept", "*/*")
        if CSV in accept:
            columns = sorted({key for row in found for key in row})
            lines = [",".join(str(row.get(key, "")) for key in columns) for row in found]
            return Reply(content="\n".join([",".join(columns), *lines, ""]).encode(), headers={"Content-Type": CSV})
        if "json" not in accept and "*/*" not in accept:
            raise Refused(415, "Accept must be application/json or text/csv")
        token, size = asked.pop("page_token", None), asked.pop("page_size", PAGE)
        turn = self._tokens.offset_page if self._mischief.offset_pages else self._tokens.page
        page, next_token = turn(what, canonical(asked), token, size, (((n,), row) for n, row in enumerate(found)))
        return Reply(json={name: page} | ({"page_token": next_token} if next_token is not None else {}), body=ROWS)


def envelope(refused: Refused) -> Reply:
    """An error of revenue."""
    details = [{"message": key, "description": str(value)} for key, value in refused.details.items()]
    body = {"title": refused.title, "status": refused.status, "details": details}
    return Reply(status=refused.status, json=body, body=Body.REVENUE_ERROR)


def _months(asked: Doc) -> None:
    first, last = (date.fromisoformat(f"{asked[name]}-01") for name in ("period_start", "period_end"))
    months = (last.year - first.year) * 12 + last.month - first.month + 1
    if months < 1:
        raise Refused(400, "period_end is before period_start")
    if months > 3:
        raise Refused(400, "period is longer than 3 months", months=months)


def _starts(value: str, filters: list[str] | None) -> bool:
    return not filters or any(value.lower().startswith(prefix.lower()) for prefix in filters)


def _suits(row: Doc, asked: Doc) -> bool:
    contains = (("meter_id_contains", "meter_id"), ("partner_reference_contains", "partner_reference"),
                ("customer_name_contains", "customer_name"))  # fmt: skip
    if any(name in asked and asked[name].lower() not in str(row.get(key, "")).lower() for name, key in contains):
        return False
    within = (("transmission_regions", "transmission_region"), ("programs", "program"),
              ("historical_responsiveness", "historical_responsiveness"))  # fmt: skip
    if any(asked.get(name) and row.get(key) not in asked[name] for name, key in within):
        return False
    pair = {"program": row["program"], "meter_id": row["meter_id"]}
    included = asked.get("include_meter_programs")
    return (not included or pair in included) and pair not in asked.get("exclude_meter_programs", [])


def _sortable(row: Doc, name: str) -> tuple[bool, float, str]:
    value = row.get("nomination_w" if name == "nomination_kw" else name)
    number = float(value) if isinstance(value, int | float) else 0.0
    return value is not None, number, str(value) if isinstance(value, str) else ""
