"""How a product is reached: connection limits, pacing, retries, authentication, per transport."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from gateway.profiles.language.base import Key, ModelId, ModelKey, ModelName, Name, StrictModel, TopicPattern
from gateway.profiles.language.points import HttpPath, Pointer

Seconds = Annotated[float, Field(ge=0, le=3600)]
Register = Annotated[int, Field(ge=0, le=65535)]
UnitId = Annotated[int, Field(ge=0, le=255)]
BlockCount = Annotated[int, Field(ge=1, le=64)]


COMMON_FROM, COMMON_WORDS = 18, 48
"""What is read of a common block to choose by it: product, option, version and serial, from its id word."""


class BlockNames(StrictModel):
    """How blocks are known by name: the text of `words` registers at `offset` from a block's first one, and for each
    name that points use what that text `begins` with, in one block only."""

    offset: Register
    words: Annotated[int, Field(ge=1, le=64)]
    begins: Annotated[dict[ModelName, Annotated[str, Field(min_length=1, max_length=64)]], Field(min_length=1)]


class SunSpecBlocks(StrictModel):
    """A repeating group: registers from the model's id word to the first block, the length of one, and how many there
    are: one `count`, or a list of all that the product may have. A device with another one is another product: what is
    in a block depends on it; so is one whose own number of blocks, in the register `count_at` from the id word, is not
    what the model's length holds. `names`: points may give a block's name in place of its number."""

    start: Register
    length: Annotated[int, Field(ge=1, le=65535)]
    count: BlockCount | Annotated[tuple[BlockCount, ...], Field(min_length=1)]
    count_at: Register | None = None
    names: BlockNames | None = None

    def faults(self) -> Iterator[str]:
        if self.names is not None and self.names.offset + self.names.words > self.length:
            yield "names: the text lies beyond the block"

    @property
    def counts(self) -> tuple[int, ...]:
        """Every number of blocks that the product may have."""
        return (self.count,) if isinstance(self.count, int) else self.count

    def knows(self, block: int | str) -> bool:
        """Whether the product may have a block of this number or name."""
        if isinstance(block, str):
            return self.names is not None and block in self.names.begins
        return abs(block) <= max(self.counts)


class OneModel(StrictModel):
    """Which model a name means: one that has any of the `ids` (models of one layout), the `nth` of these in the chain
    (1 = the first); with `options` the one whose own common block, the last before it, has the first of these option
    texts that any of them has ("" = it says nothing). Of several that say the same none is chosen. A device's
    registration may choose another, as a parameter of this name: its serial number, or its place among them."""

    ids: Annotated[tuple[ModelId, ...], Field(min_length=1)]
    nth: Annotated[int, Field(ge=1, le=64)] = 1
    options: tuple[Annotated[str, Field(max_length=16)], ...] = ()

    def faults(self) -> Iterator[str]:
        if self.options and self.nth > 1:
            yield "nth or options, not both"


class SunSpec(StrictModel):
    """Where to look for the "SunS" marker, in this order, and what the chain must hold: `required` are ids, or names of
    `models`, of which one of their ids must be there."""

    bases: tuple[Register, ...] = (40000, 0, 50000)
    required: tuple[ModelKey, ...]
    models: dict[ModelName, OneModel] = Field(default_factory=dict)
    blocks: dict[ModelKey, SunSpecBlocks] = Field(default_factory=dict)
    models_max: Annotated[int, Field(ge=1, le=200)] = 60

    def ids(self, key: ModelKey) -> tuple[int, ...]:
        """Model ids that a profile's word for a model may mean."""
        return (key,) if isinstance(key, int) else self.models[key].ids if key in self.models else ()


class ModbusSection(StrictModel):
    """Modbus TCP. `units`: unit ids by name (`main` is the default of every point); a device's registration may
    override them. Reads are merged up to `registers_max` over gaps of at most `gap_max` registers and never across a
    register in `split_at`; `forbidden` ranges (first, last) are never touched. `spacing_s` between requests, `rest_s`
    after a connect, `idle_s_max` the longest silence the device keeps the connection through. `write_answer` malformed:
    the device confirms writes with bytes that are not what the protocol says (the function alone is believed).
    `busy_codes` are exceptions that mean "try later" (`busy_retries` times after `busy_wait_s`). `refusal_codes`: those
    of them that a device gives to a value it does not take, too: a write is refused by one if a read is answered right
    after it."""

    port: Annotated[int, Field(ge=1, le=65535)] = 502
    units: dict[Name, UnitId]
    word_order: Literal["big", "little"] = "big"
    sunspec: SunSpec | None = None
    unimplemented: Literal["none", "sunspec"] = "none"
    registers_max: Annotated[int, Field(ge=1, le=125)] = 125
    gap_max: Annotated[int, Field(ge=0, le=124)] = 8
    split_at: tuple[Register, ...] = ()
    forbidden: tuple[tuple[Register, Register], ...] = ()
    connections_max: Annotated[int, Field(ge=1, le=16)] | None = None
    rest_s: Seconds = 0.0
    spacing_s: Seconds = 0.0
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 3.0
    timeouts_to_reconnect: Annotated[int, Field(ge=1, le=10)] = 3
    idle_s_max: Seconds | None = None
    busy_codes: tuple[Annotated[int, Field(ge=1, le=255)], ...] = (5, 6)
    refusal_codes: tuple[Annotated[int, Field(ge=1, le=255)], ...] = ()
    busy_retries: Annotated[int, Field(ge=0, le=10)] = 2
    busy_wait_s: Seconds = 0.5
    reconnect_after_reply_errors: Annotated[int, Field(ge=1, le=10)] = 3
    write_answer: Literal["exact", "malformed"] = "exact"

    def faults(self) -> Iterator[str]:
        if "main" not in self.units:
            yield "units: `main` is missing"
        if not set(self.refusal_codes) <= set(self.busy_codes):
            yield "refusal_codes: every other code than busy_codes is a refusal anyway"


class Auth(StrictModel):
    """How requests prove who we are; the secret itself is registered with the device, by reference.

    `header`: the secret as header `name`. `basic`, `digest`: user name and secret. `login`: POST the `fields` (their
    values: constants, or `$username` / `$secret`) to `path`; the token at `token` is sent as a bearer and the cookies
    are kept. `expired_status` mean: log in again, once. `unauthorized_without`: a body without this member is a
    refusal too (firmware that answers a wrong token with an empty object).
    """

    kind: Literal["none", "header", "basic", "digest", "login"] = "none"
    name: Key | None = None
    path: HttpPath | None = None
    fields: dict[Key, str | bool] = Field(default_factory=dict)
    token: Pointer | None = None
    expired_status: tuple[Annotated[int, Field(ge=400, le=499)], ...] = (401, 403)
    unauthorized_without: Pointer | None = None

    def faults(self) -> Iterator[str]:
        if (self.kind == "header") != (self.name is not None):
            yield "name belongs to kind header, and kind header needs it"
        if (self.kind == "login") != (self.path is not None and self.token is not None):
            yield "path and token belong to kind login, and kind login needs them"


class HttpSection(StrictModel):
    """HTTP with JSON. `tls` none | verify | unverified (a self-signed certificate on the home network; registration may
    pin its fingerprint). At most `concurrency` requests at once per host and `spacing_s` between them. After `breaker`
    failures in a row the host is left alone for `breaker_s`; a 429 without Retry-After for `cool_down_s`.
    `account`: hosts that share a maker's cloud quota of `account_per_min` requests; commands come first."""

    port: Annotated[int, Field(ge=1, le=65535)] = 80
    tls: Literal["none", "verify", "unverified"] = "none"
    auth: Auth = Auth()
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    spacing_s: Seconds = 0.0
    concurrency: Annotated[int, Field(ge=1, le=16)] = 1
    body_bytes_max: Annotated[int, Field(ge=1024, le=1 << 22)] = 1 << 18
    cool_down_s: Seconds = 30.0
    breaker: Annotated[int, Field(ge=1, le=20)] = 5
    breaker_s: Seconds = 30.0
    account_per_min: Annotated[int, Field(ge=1, le=100_000)] | None = None


class MqttKeepalive(StrictModel):
    """What the gateway publishes so that the device goes on publishing: `first` (payload after a connect) and
    `payload`, every `every_s`."""

    topic: TopicPattern
    every_s: Annotated[float, Field(gt=0, le=3600)]
    first: str = ""
    payload: str = ""


class MqttSection(StrictModel):
    """Values on MQTT topics. `broker` device = the device has its own broker, fleet = the device is a client of ours.
    `variables` are topic levels, as `{name}`, registered per device. `quiet_s`: silence after which the
    device counts as lost and, without a keepalive, a topic of its live values too."""

    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    broker: Literal["device", "fleet"]
    variables: tuple[Name, ...] = ()
    keepalive: MqttKeepalive | None = None
    quiet_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
