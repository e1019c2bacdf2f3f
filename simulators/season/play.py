"""A whole season of DSGS at a street, judged: the gateway's own code works out what every home is paid, in a process of
its own; two judges say what it must be.

The first homes go the whole way, message by message; of the others the quarters of each day are handed over.
"""

import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from simulators.season.by_energies import Bounded, ByEnergies
from simulators.season.by_readings import ByReadings
from simulators.season.days import true_days
from simulators.season.handover import FOUND, HandedDay, hand_over
from simulators.season.official import events_of, official_hours
from simulators.season.received import Received, received_days
from simulators.season.street import season_street

PROGRAM, YEAR = "dsgs-option3", 2025
GATEWAY = ("-m", "tests.season_gateway")
"""The gateway's side, from a checkout: simulators never import it."""

MEAN_PCT = 0.1
RECALL = 0.9
"""Of one street; it is 95 % of thirty."""
DISK_BYTES = 4_000_000_000
ENDS_S = 3_600.0
LOG, LAST_WORDS = "gateway.log", 2_000
Key = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeasonOptions:
    """`homes` at the first `events` of the season (None = all); the first `logged` of them go the whole way."""

    homes: int
    seed: int
    logged: int = 200
    events: int | None = None
    months: Path | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class SeasonVerdict:
    """Pay by home and month: the gateway's, and both judges'."""

    events: int
    customers: int
    paid: dict[Key, Decimal]
    by_readings: dict[Key, Decimal]
    by_energies: dict[Key, Bounded]
    found: int
    planted: int
    disk_bytes: int
    seconds: float = 0.0
    differing: list[Key] = field(init=False)
    outside: list[Key] = field(init=False)

    def __post_init__(self) -> None:
        keys = self.paid.keys() | self.by_readings.keys()
        self.differing = sorted(key for key in keys if self.paid.get(key) != self.by_readings.get(key))
        self.outside = sorted(
            key for key, one in self.by_energies.items() if not one.holds(self.paid.get(key, Decimal(0)))
        )

    @property
    def mean_error_pct(self) -> float:
        """Of all that is paid, against what the energies are worth."""
        worth = float(sum(one.amount for one in self.by_energies.values()))
        return 100 * (float(sum(self.paid.values())) - worth) / worth if worth else 0.0

    @property
    def ok(self) -> bool:
        agree = not self.differing and not self.outside and abs(self.mean_error_pct) < MEAN_PCT
        return agree and self.found >= RECALL * self.planted and self.disk_bytes < DISK_BYTES

    def as_dict(self) -> dict[str, Any]:
        bounds = [float(one.bound) for one in self.by_energies.values()]
        return {
            "ok": self.ok,
            "events": self.events,
            "customers": self.customers,
            "revenue": str(sum(self.paid.values(), Decimal("0.00"))),
            "oracle_revenue": str(sum(self.by_readings.values(), Decimal("0.00"))),
            "true_revenue": f"{float(sum(one.amount for one in self.by_energies.values())):.2f}",
            "mean_error_pct": round(self.mean_error_pct, 4),
            "home_months": len(self.by_readings),
            "differing": len(self.differing),
            "outside": len(self.outside),
            "bound_usd": {"median": round(float(np.median(bounds)), 3), "largest": round(max(bounds), 2)},
            "found": self.found,
            "planted": self.planted,
            "disk_bytes": self.disk_bytes,
            "seconds": round(self.seconds, 1),
        }

    def table(self) -> str:
        """Every home's month as CSV."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("home", "month", "paid", "by_readings", "by_energies", "bound", "within"))
        for key in sorted(self.by_energies):
            one, paid = self.by_energies[key], self.paid.get(key)
            amounts = (f"{float(one.amount):.4f}", f"{float(one.bound):.4f}")
            within = paid is not None and one.holds(paid)
            rows.writerow((*key, paid, self.by_readings.get(key), *amounts, "yes" if within else "NO"))
        return out.getvalue()


def play(options: SeasonOptions) -> SeasonVerdict:
    """Simulate, hand over, and judge. Raises RuntimeError if the gateway's side ends without an answer."""
    began = time.monotonic()
    events = events_of(official_hours())[: options.events]
    street = season_street(options.homes, events, options.seed)
    readings, energies = ByReadings(street=street), ByEnergies(street=street)
    with tempfile.TemporaryDirectory(prefix="season-") as scratch, _gateway(options, Path(scratch)) as gateway:
        for true, received in received_days(street, true_days(street)):
            quarters = readings.day(received)
            whole = slice(options.logged, None)
            hand_over(
                Path(scratch),
                HandedDay(
                    received=_first(received, options.logged),
                    charge_wh=quarters.charge_wh[whole],
                    discharge_wh=quarters.discharge_wh[whole],
                ),
            )
            _announce(gateway, received.event)
            energies.day(true, received)
        found = _answer(gateway, Path(scratch))
    verdict = SeasonVerdict(
        events=len(events),
        customers=options.homes,
        paid={
            (int(home), int(month)): Decimal(pay)
            for home, months in found["months"].items()
            for month, pay in months.items()
        },
        by_readings=readings.months(),
        by_energies=energies.months(),
        found=found["found"],
        planted=found["planted"],
        disk_bytes=found["disk_bytes"],
    )
    if options.months is not None:
        options.months.write_text(verdict.table())
    verdict.seconds = time.monotonic() - began
    return verdict


def _first(received: Received, homes: int) -> Received:
    arrays = {name: getattr(received, name)[:homes] for name in received.__slots__ if name != "event"}
    return replace(received, **arrays)


@contextmanager
def _gateway(options: SeasonOptions, scratch: Path) -> Iterator[subprocess.Popen[str]]:
    words = {"homes": options.homes, "logged": options.logged, "events": options.events or 0, "seed": options.seed}
    command = [sys.executable, *GATEWAY, str(scratch), json.dumps(words)]
    with (scratch / LOG).open("w") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def _announce(gateway: subprocess.Popen[str], event: int) -> None:
    """A process that has ended hears nothing; its answer will be missed."""
    if gateway.stdin is not None and gateway.poll() is None:
        with suppress(BrokenPipeError):
            gateway.stdin.write(f"{event}\n")
            gateway.stdin.flush()


def _answer(gateway: subprocess.Popen[str], scratch: Path) -> dict[str, Any]:
    gateway.communicate(timeout=ENDS_S)
    if gateway.returncode != 0:
        words = (scratch / LOG).read_text().strip()[-LAST_WORDS:]
        raise RuntimeError(f"the gateway's side ended with {gateway.returncode}: {words}")
    answer: dict[str, Any] = json.loads((scratch / FOUND).read_text())
    return answer
