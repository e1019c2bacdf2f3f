"""A strict stand-in for the aggregator: its HTTP services, its webhooks, and the folder behind its SFTP server.

Written from the published contract alone. It refuses what the contract refuses and records what it was asked; points
that no public text settles are marked [?] where they are decided, and are switches where a test needs both readings.
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
    EMPTY_ANSWER,
    FAILED_WITHOUT_ERRORS,
    FAILED_WITHOUT_LINE,
    HTML_PAGE,
    NEVER,
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
    stall,
)

__all__ = [
    "AT_ONCE",
    "EMPTY_ANSWER",
    "FAILED_WITHOUT_ERRORS",
    "FAILED_WITHOUT_LINE",
    "HTML_PAGE",
    "NEVER",
    "PLATFORM_LADDER",
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
    "stall",
]
