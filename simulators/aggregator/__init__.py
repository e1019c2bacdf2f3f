"""A strict stand-in for the aggregator: its HTTP services, its webhooks, and the folder behind its SFTP server.

Written from the published contract alone. It refuses what the contract refuses and records what it was asked; points
that no public text settles are marked [?] where they are decided, and are switches where a test needs both readings.
`python -m simulators.aggregator` serves everything on loopback; `control` says how it is moved from outside.

| part of the contract | here |
|---|---|
| 1 keys, environments, error envelopes, paging | `server`, `permissions`, `service`, `paging`; envelopes per service |
| 2 dispatch v2: slots, search, registration, tests | `dispatch_shapes`, `dispatch_book`, `dispatch_api` |
| 2.2, 5 how webhooks are delivered and tried again | `deliveries` |
| 3 meters: jobs, provisional assets, reading | `meter_shapes`, `meter_book`, `meter_jobs`, `meters_api` |
| 4 enrollment; idle, participate, disenroll | `meter_book`, `periods`, `meters_api` |
| 5 platform webhooks | `webhook_api` |
| 7 nominations and suggestions | `nomination_api` |
| 8 interval data, missing intervals, the SFTP folder | `interval_api`, `intervals`, `csv_rules`, `missing`, `sftp` |
| 9 unresponsive meters, 10 aggregations and versions | `revenue_api` |
| 11 what goes wrong | `switches`, `spoil`, `control` |

Not served: meter performance, revenue reports and yearly totals, the filter lists, Leap Connect's pages, and the calls
of section 3.4 whose bodies nobody publishes.
"""

from simulators.aggregator.contract import Body, OffContract, check
from simulators.aggregator.csv_rules import Code, Judgement, LineError, Row, Rules, judge
from simulators.aggregator.deliveries import PLATFORM_LADDER, Delivery, Manner, State
from simulators.aggregator.dispatch_api import DispatchPoints
from simulators.aggregator.dispatch_book import DispatchBook, Event, Flag, Kind, slot
from simulators.aggregator.intervals import Intervals, Job, Schema, Status, Upload, Version
from simulators.aggregator.meter_book import Change, Meter
from simulators.aggregator.meter_jobs import AssetFate
from simulators.aggregator.permissions import Access, Environment, Permission
from simulators.aggregator.server import Aggregator, Seen
from simulators.aggregator.sftp import Fault, FaultKind, SftpFolder
from simulators.aggregator.switches import (
    AT_ONCE,
    BARE_STRING,
    EMPTY_ANSWER,
    FAILED_WITHOUT_ERRORS,
    FAILED_WITHOUT_LINE,
    HTML_PAGE,
    NEVER,
    TOO_MANY,
    Fate,
    Mischief,
    Mishap,
    OpenPoints,
    Operation,
    Order,
    Pace,
    Rerun,
    SearchNames,
    Trouble,
    Wait,
    WindowRule,
    answer,
    cut,
    half,
    hang,
    slow,
    stall,
)

__all__ = [
    "AT_ONCE",
    "BARE_STRING",
    "EMPTY_ANSWER",
    "FAILED_WITHOUT_ERRORS",
    "FAILED_WITHOUT_LINE",
    "HTML_PAGE",
    "NEVER",
    "PLATFORM_LADDER",
    "TOO_MANY",
    "Access",
    "Aggregator",
    "AssetFate",
    "Body",
    "Change",
    "Code",
    "Delivery",
    "DispatchBook",
    "DispatchPoints",
    "Environment",
    "Event",
    "Fate",
    "Fault",
    "FaultKind",
    "Flag",
    "Intervals",
    "Job",
    "Judgement",
    "Kind",
    "LineError",
    "Manner",
    "Meter",
    "Mischief",
    "Mishap",
    "OffContract",
    "OpenPoints",
    "Operation",
    "Order",
    "Pace",
    "Permission",
    "Rerun",
    "Row",
    "Rules",
    "Schema",
    "SearchNames",
    "Seen",
    "SftpFolder",
    "State",
    "Status",
    "Trouble",
    "Upload",
    "Version",
    "Wait",
    "WindowRule",
    "answer",
    "check",
    "cut",
    "half",
    "hang",
    "judge",
    "slot",
    "slow",
    "stall",
]
