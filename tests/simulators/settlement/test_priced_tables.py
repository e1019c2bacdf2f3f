"""Tables of hours as the gateway prices them, judged by arithmetic of other hands."""

import json
from calendar import monthrange
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.settlement import Exact, cents, exact
from simulators.settlement.market_aware import Hour, month
from tests.cli.test_cli import run

PROGRAM = Path(__file__).parents[3] / "config" / "programs" / "dsgs-option3.yaml"
RATES = {5: "8.775", 6: "9.074", 7: "16.380", 8: "17.550", 9: "18.720", 10: "10.244"}
"""Per kW and month of 2025, two-hour batteries, with the bonus."""

KINDS = ("Capacity", "Test Capacity", "Test Non-Capacity", "Energy-Only")
days = st.sampled_from([date(2025, m, d) for m in RATES for d in range(1, monthrange(2025, m)[1] + 1)])
kw = st.none() | st.decimals(-6, 12, places=3)
prices = st.none() | st.decimals("-20", 900, places=5)


@st.composite
def tables(draw: st.DrawFn) -> list[Hour]:
    """Hours of some months, four at most of which have no price."""
    keys = draw(st.lists(st.tuples(days, st.integers(17, 21)), min_size=1, max_size=25, unique=True))
    hours = []
    for day, hour_end in keys:
        price, given_kw = draw(prices), draw(kw)
        hours.append(
            Hour(
                day=day,
                hour_end=hour_end,
                event_type=draw(st.sampled_from(KINDS)),
                price=None if price is None else exact(price),
                net_kw=None if given_kw is None else exact(given_kw),
            )
        )
    return hours


def written(hours: Sequence[Hour]) -> str:
    lines = ["date,hour_end,event_type,price_usd_per_mwh,net_discharge_kw"]
    for hour in hours:
        price, given_kw = ("" if value is None else f"{float(value):.5f}" for value in (hour.price, hour.net_kw))
        lines.append(f"{hour.day},{hour.hour_end},{hour.event_type},{price},{given_kw}")
    return "\n".join(lines) + "\n"


def priced(hours: Sequence[Hour], path: Path, *more: str) -> dict[str, Any]:
    path.write_text(written(hours))
    (path.parent / PROGRAM.name).write_text(PROGRAM.read_text())
    words = ["programs", "price", "--program", PROGRAM.stem, "--on", "2025-07-01", "--dir", str(path.parent)]
    words += ["--hours", str(path), "--json"]
    result = run(*words, *more)
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def judged(hours: Sequence[Hour], baseline_kw: Exact) -> dict[str, tuple[Decimal, Decimal] | None]:
    """The least and the most that every month with an hour that counts pays; None = nothing can be said."""
    by_month: defaultdict[str, list[Hour]] = defaultdict(list)
    for hour in hours:
        by_month[f"{hour.day:%Y-%m}"].append(hour)
    found: dict[str, tuple[Decimal, Decimal] | None] = {}
    for name, some in by_month.items():
        one = month(some, baseline_kw)
        if one.hours:
            pay = one.pay(exact(RATES[int(name[5:])]))
            found[name] = None if pay is None else (cents(pay[0]), cents(pay[1]))
    return found


@settings(max_examples=40, deadline=None)
@given(hours=tables(), baseline=st.decimals(0, 3, places=4))
def test_every_month_of_a_table_pays_what_the_judge_says(
    tmp_path_factory: Any, hours: list[Hour], baseline: Decimal
) -> None:
    path = tmp_path_factory.mktemp("table") / "hours.csv"
    answer = priced(hours, path, "--baseline-kw", str(baseline))
    told = {
        period["period"]: (
            None
            if period["pay_low"] is None or period["pay_high"] is None
            else (Decimal(period["pay_low"]), Decimal(period["pay_high"]))
        )
        for period in answer["periods"]
        if period["hours_counted"]
    }
    assert told == judged(hours, exact(baseline))
