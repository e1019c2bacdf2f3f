"""Schemas of meters, their jobs and enrollments (sections 3 and 4.1)."""

from typing import Any

from simulators.aggregator.contract import (
    BOOL,
    COUNT,
    DATE,
    ID,
    NUMBER,
    TEXT,
    TIME,
    TOKEN,
    JsonSchema,
    Shape,
    array,
    enum,
    record,
)

REGION = enum("CAISO", "ERCOT", "NYISO", "ISONE", "PJM", "SERC", "WECC_SW", "WECC_PC")
METER_TYPE = enum("UTILITY_METER", "SUBMETER", "DEVICE")
CLASS = enum("RESIDENTIAL", "COMMERCIAL")
LOAD_TYPE = enum(
    "HVAC", "EV_CHARGING", "BATTERY_STORAGE", "COLD_STORAGE", "PUMPING", "WATER_HEATING", "BUILDING_AUTOMATION",
    "GENERATION", "MANUFACTURING", "LIGHTING", "OTHER",
)  # fmt: skip
DEVICE_TYPE = enum(
    "BATTERY", "GENERATOR", "EV", "EV_CHARGER", "BIDIRECTIONAL_EV_CHARGER", "SMART_THERMOSTAT", "AIR_CONDITIONER",
    "HEAT_PUMP",
)  # fmt: skip
STATUS = enum("ACTIVE", "ELIGIBLE", "INELIGIBLE", "NOT_PARTICIPATING", "PENDING")
ACTION_TYPE = enum(
    "IS_AUTHORIZED", "DOCUMENTS_SIGNED", "HAS_AMI", "NOT_ENROLLED_IN_CONFLICTING_PROGRAM", "PARTICIPATING",
    "HAS_MARKET_REGISTRATION", "NO_MISSING_FIELDS", "GENERATOR", "ADDRESS", "HAS_NOMINATIONS", "HAS_BIDDING_STRATEGY",
    "IS_ELIGIBLE", "IS_ASSIGNED_TO_A_RESOURCE", "MEETS_EXTRA_PROGRAM_REQUIREMENTS",
)  # fmt: skip
REFERENCE: JsonSchema = {"type": "string", "pattern": r"^[^/\\?\]\[{}!#$%^&*()<>|]{3,256}$"}
SIZE: JsonSchema = {"type": "integer", "minimum": 1, "maximum": 500}


def _text(least: int, most: int) -> JsonSchema:
    return {"type": "string", "minLength": least, "maxLength": most}


def _number(least: float, most: float, kind: str = "number") -> JsonSchema:
    return {"type": kind, "minimum": least, "maximum": most}


def _some(items: JsonSchema, least: int, most: int) -> JsonSchema:
    return array(items, minItems=least, maxItems=most, uniqueItems=True)


POSTAL: JsonSchema = {"type": "string", "pattern": r"^[0-9]{5}(?:-[0-9]{4})?$"}
ADDRESS: dict[str, JsonSchema] = {
    "street_1": _text(1, 128), "street_2": TEXT, "postal_code": POSTAL, "city": TEXT,
    "state_or_province_code": _text(2, 2), "country_code": _text(2, 2),
}  # fmt: skip
ADDRESS_KEYS = "street_1 postal_code city state_or_province_code country_code"
KW = _number(0, 999_999)
BATTERY: dict[str, JsonSchema] = {
    "battery_max_discharge_rate_kw": KW, "battery_max_charge_rate_kw": KW,
    "battery_max_state_of_charge_percentage": _number(2, 100),
    "battery_min_state_of_charge_percentage": _number(0, 100),
    "installer": _text(1, 256), "is_connected_to_solar": BOOL,
}  # fmt: skip
CUSTOMER = record(
    ADDRESS_KEYS,
    **ADDRESS,
    end_customer_name=_text(1, 128),
    end_customer_title=_text(1, 15),
    end_customer_email=_text(3, 128),
    end_customer_phone_number=_text(3, 32),
    end_customer_company_name=TEXT,
    partner_offering_name=TEXT,
    partner_offering_date=DATE,
    is_in_wholesale_capacity_market=BOOL,
    dispatch_option=enum("DAILY", "TARGETED"),
    billing=record(ADDRESS_KEYS, **ADDRESS),
    partner_customer_reference=TEXT,
)
DEVICE = record(
    **BATTERY,
    device_type=DEVICE_TYPE,
    device_serial_number=_text(0, 256),
    device_model=_text(0, 128),
    device_manufacturer=_text(0, 128),
    install_date=DATE,
    permission_to_operate_date=DATE,
    battery_power_capacity_kw=KW,
    battery_energy_capacity_kwh=KW,
    battery_duration_hours=_number(0, 100, "integer"),
)
SITE_DEVICE = record(
    "device_type",
    **BATTERY,
    device_type=DEVICE_TYPE,
    energy_capacity_duration_hours=_number(0, 100, "integer"),
    voltage_level=enum("EVSE_LEVEL_1", "EVSE_LEVEL_2"),
    model_year=_number(1900, 2100, "integer"),
    fuel_type=enum("DIESEL", "NATURAL_GAS", "DUAL_FUEL", "CO_GEN", "ENERGY_STORAGE", "OTHER"),
)
ASSET_PARTS: dict[str, JsonSchema] = {
    "partner_reference": REFERENCE,
    "transmission_region": REGION,
    "customer_classification": CLASS,
    "load_types": array(LOAD_TYPE, minItems=1),
    "meter_type": METER_TYPE,
    "customer": CUSTOMER,
    "device": DEVICE,
    "site": record(number_of_devices=_number(0, 99, "integer"), site_devices=array(SITE_DEVICE)),
    "caiso": record(is_receiving_sgip_funding=BOOL, nem_type=enum("NEM2", "NEM3")),
    "isone": record(in_connected_solutions=BOOL),
    "nyiso": record(cbl_method=enum("AVERAGE_DAY", "WEATHER_ADJUSTED")),
    "utility": record(
        utility_name=TEXT,
        electric_service_account_number=_text(0, 128),
        utility_meter_serial_number=_text(0, 256),
    ),
    "customer_group": _text(0, 128),
}
ASSET_KEYS = "partner_reference transmission_region customer_classification load_types meter_type customer"
ASSET = Shape("asset", record(ASSET_KEYS, **ASSET_PARTS))
ASSETS = Shape("assets", record("assets", assets=array({})))
CREATE_ONE = Shape(
    "meter creation",
    record("onboarding_token provisional_asset", onboarding_token=TEXT, provisional_asset=ASSET.schema),
)
ASSET_STATUS: dict[str, JsonSchema] = {
    "partner_reference": TEXT,
    "status": enum("PROCESSING", "FAILED", "DUPLICATE", "COMPLETED", "MULTIPLE_PARTNER_REFERENCE"),
    "status_detail": record(name=TEXT, description=TEXT, failed_fields={"type": "object"}),
    "created_at": TIME,
    "meter_id": ID,
}
STATUS_KEYS = "partner_reference status status_detail"
JOB: dict[str, JsonSchema] = {
    "job_id": ID,
    "status": enum("PROCESSING", "FAILED", "COMPLETED", "COMPLETED_WITH_ERRORS"),
    "file_name": TEXT,
    "assets_count": COUNT,
    "assets_created_count": COUNT,
    "assets_updated_count": COUNT,
    "assets_failed_count": COUNT,
    "transmission_regions": array(TEXT),
    "created_at": TIME,
    "updated_at": TIME,
}
JOB_KEYS = "job_id status created_at updated_at"
JOB_ID = Shape("meter job id", record("job_id", job_id=ID))
JOB_REPLY = Shape("meter job", record(JOB_KEYS, **JOB, assets=array(record(STATUS_KEYS, **ASSET_STATUS))))
JOBS_REPLY = Shape("meter jobs", record("jobs", jobs=array(record(JOB_KEYS, **JOB)), next_page_token=TOKEN))
PROVISIONAL = record(STATUS_KEYS + " job_id", **ASSET_STATUS, job_id=ID, data={"type": "object"})
PROVISIONAL_REPLY = Shape(
    "provisional assets", record("provisional_assets", provisional_assets=array(PROVISIONAL), next_page_token=TOKEN)
)
CREATED_ONE = Shape("provisional asset", record(STATUS_KEYS, **ASSET_STATUS, data={"type": "object"}))
CREATE_QUERY = Shape(
    "meter job query",
    record(
        update_existing=BOOL,
        file_name={"type": "string", "maxLength": 255, "pattern": r"^[a-zA-Z0-9._\s-]+.[a-zA-Z0-9]+$"},
    ),
)
LIST_QUERY = Shape(
    "meter jobs query",
    record(
        filter=array({"type": "string", "pattern": "^[^:]+:.+"}),
        page_token=TEXT,
        page_size={"type": "integer", "minimum": 1},
        search_query=TEXT,
        search_fields=TEXT,
    )
    | {"dependentRequired": {"search_query": ["search_fields"]}},
)
FILTER = Shape(
    "meter filter",
    record(
        page_token=TEXT,
        page_size=SIZE,
        transmission_region=REGION,
        customer_classification=CLASS,
        meter_ids=_some(ID, 0, 1000),
        partner_references=_some(TEXT, 1, 1000),
        connection_reference_ids=_some(TEXT, 1, 100),
        global_enrollment_statuses=_some(STATUS, 1, 5),
        meter_types=_some(METER_TYPE, 1, 20),
        load_types=_some(LOAD_TYPE, 1, 20),
        customer_groups=_some(TEXT, 1, 20),
        tags=_some(TEXT, 1, 20),
        action_type=_some(ACTION_TYPE, 1, 20),
        last_modified_date_time=TIME,
        created_after_date_time=TIME,
        created_before_date_time=TIME,
        partner_action_required=BOOL,
        exclude_archived=BOOL,
    ),
)
AUDIT = record(created_by=enum("PARTNER", "LEAP", "UTILITY"), created_at=TIME, updated_at=TIME)
COMMON: dict[str, JsonSchema] = {
    "meter_id": ID, "is_archived": BOOL, "audit": AUDIT, "transmission_region": REGION, "meter_type": METER_TYPE,
    "load_types": array(LOAD_TYPE), "tags": array(TEXT), "connection_references": array(TEXT),
}  # fmt: skip
DETAILS = record(
    "meter_id is_archived audit customer transmission_region meter_type", **COMMON, customer={"type": "object"}
)
ACTION = record(
    "program_identifier delivery_period enrollment_deadline_date_time action_type action_description action_code",
    program_identifier=TEXT,
    delivery_period=TEXT,
    enrollment_deadline_date_time=TIME,
    action_type=ACTION_TYPE,
    action_description=TEXT,
    action_code=TEXT,
)
ACTIONS = record(partner=array(ACTION), leap=array(ACTION))
PROGRAM = record(
    "delivery_period_start_date_time delivery_period_end_date_time enrollment_status enrollment_deadlines",
    program_identifier=TEXT,
    delivery_period=TEXT,
    delivery_period_start_date_time=TIME,
    delivery_period_end_date_time=TIME,
    enrollment_status=STATUS,
    enrollment_deadlines=array(
        record(
            "enrollment_deadline_date_time activation_date_time",
            enrollment_deadline_date_time=TIME,
            activation_date_time=TIME,
        )
    ),
    market_group_id=ID,
    market_group_name=TEXT,
)
PREFERENCE = record(
    "participation_preference start_time",
    participation_preference=enum("PARTICIPATE", "IDLE", "DISENROLL"),
    start_time=TIME,
    end_time=TIME,
    reason=TEXT,
)
ENROLLMENT = record(
    "meter_id transmission_region load_types tags is_archived audit global_enrollment_status program_enrollment "
    "required_actions",
    **COMMON,
    global_enrollment_status=STATUS,
    program_enrollment=array(PROGRAM),
    required_actions=ACTIONS,
    participation_preferences=array(PREFERENCE),
)


def _listed(name: str, items: JsonSchema) -> Shape:
    return Shape(name, record(meters=array(items, maxItems=500), next_page_token=TOKEN))


DETAILS_REPLY = Shape("meter", DETAILS)
ENROLLMENT_REPLY = Shape("enrollment", ENROLLMENT)
DETAILS_FOUND = _listed("meters", DETAILS)
ENROLLMENTS_FOUND = _listed("enrollments", ENROLLMENT)
PROGRAM_SHAPE = Shape("program enrollment", PROGRAM)
ACTIONS_SHAPE = Shape("required actions", ACTIONS)


def typed(text: str, schema: JsonSchema) -> Any:
    """A CSV cell as its schema types it; what cannot be read stays text and fails the schema."""
    kind = schema.get("type")
    if kind == "boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return int(text) if kind == "integer" else float(text) if kind == NUMBER["type"] else text
    except ValueError:
        return text
