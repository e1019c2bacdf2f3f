"""Schemas of dispatch v2 (sections 2.1 to 2.5). Null is allowed where it is documented; programs are open."""

from simulators.aggregator.contract import BOOL, COUNT, ID, NUMBER, TEXT, TIME, JsonSchema, Shape, array, enum, record

PROGRAM: JsonSchema = {"type": "string", "minLength": 1}
KW: JsonSchema = {"type": ["number", "null"], "minimum": 0.01, "maximum": 100_000}
HEADERS = array(record("name value", name=TEXT, value=TEXT))
EVENT_TYPES = enum("hour-ahead", "day-ahead", "5m", "capacity-test", "standard")
URL: JsonSchema = {"type": "string", "pattern": r"^https?://[^/\s]+"}


def _slot(id_key: str, **more: JsonSchema) -> JsonSchema:
    return record(
        f"{id_key} start_time end_time cancelled performance_compensation_cap priority is_voluntary "
        "dispatch_event_types programs",
        **{id_key: ID},
        start_time=TIME,
        end_time=TIME,
        cancelled=BOOL,
        energy_kw=KW,
        nomination_kw=KW,
        performance_compensation_cap=enum("grid-exports-allowed", "up-to-nomination", "up-to-site-load"),
        priority={"type": "integer", "minimum": 1, "maximum": 10},
        is_voluntary=BOOL,
        dispatch_event_types=array(EVENT_TYPES, minItems=1, uniqueItems=True),
        programs=array(PROGRAM, minItems=1, uniqueItems=True),
        **more,
    )


def _meter(**more: JsonSchema) -> JsonSchema:
    slots = array(_slot("meter_event_id", **more), minItems=1)
    return record("meter_id timeslots", meter_id=ID, partner_reference=TEXT, timeslots=slots)


def _group(**more: JsonSchema) -> JsonSchema:
    return record(
        "market_group_id meter_ids timeslots",
        market_group_id=ID,
        meter_ids=array(ID, uniqueItems=True),
        partner_references=array(TEXT, uniqueItems=True),
        timeslots=array(_slot("market_group_event_id", **more), minItems=1),
    )


def _search(**filters: JsonSchema) -> JsonSchema:
    return record(
        "start_date end_date",
        start_date=TIME,
        end_date=TIME,
        exclude_real_time_events=BOOL,
        exclude_voluntary_events=BOOL,
        page_token=ID,
        **filters,
    )


IDS = array(ID, minItems=1, uniqueItems=True)
NEXT: JsonSchema = {"type": ["string", "null"], "format": "uuid"}

METER_SLOT = Shape("meter slot", _slot("meter_event_id"))
GROUP_SLOT = Shape("group slot", _slot("market_group_event_id"))
METER_SEARCH = Shape("meter dispatch search", _search(meter_ids=IDS, meter_event_ids=IDS))
GROUP_SEARCH = Shape("group dispatch search", _search(market_group_ids=IDS, market_group_event_ids=IDS))
METER_RESULTS = Shape(
    "meter dispatches", record("results", results=array(_meter(communication_test=BOOL)), next_page_token=NEXT)
)
GROUP_RESULTS = Shape(
    "group dispatches", record("results", results=array(_group(communication_test=BOOL)), next_page_token=NEXT)
)
WEBHOOK = Shape("dispatch webhook", record("url", url=URL, headers=HEADERS))
METER_TEST = Shape("meter integration test", record("meter_dispatches", meter_dispatches=array(_meter(), minItems=1)))
GROUP_TEST = Shape("group integration test", record("group_dispatches", group_dispatches=array(_group(), minItems=1)))
TEST_REPLY = Shape(
    "integration test reply",
    record(
        "sent_time",
        sent_time=TIME,
        http_status={"type": ["integer", "null"]},
        received_time={"type": ["string", "null"], "format": "date-time"},
        headers={"type": "object"},
        body={"type": ["string", "null"]},
        error_message=TEXT,
    ),
)
COMMUNICATION_TEST = Shape(
    "communication test",
    record(
        "start_time end_time program meter_uuids",
        start_time=TIME,
        end_time=TIME,
        program=PROGRAM,
        meter_uuids=array(ID, maxItems=1000),
        test_event=BOOL,
        dispatch_quantity_kw=NUMBER,
        approved=BOOL,
    ),
)
COMMUNICATION_REPLY = Shape(
    "communication test reply",
    record(dispatch_status=TEXT, start_time=TIME, end_time=TIME, test_event=BOOL, approved=BOOL, meter_count=COUNT),
)
