"""DSGS season: what homes demonstrate with day-ahead notice, over what a clairvoyant would have got out of them.

The public event hours and prices of May to October 2025 at simulated homes with PV, loads and batteries of many sizes
under clear, broken and dark skies. The control core gets each event at 15:00 of the day before, keeps energy before it
as the program's file says, and gives "the most" to its end; firmware, meters and batteries are simulated. Demonstrated
capacity is the program's: weighted by the hourly price, less the prescriptive baseline, at least 0 per home and month.
In one size the program keeps energy for `SHORT_H` instead.

`optimum_pct`: that over the optimum of the same homes (`season_optimum`), which knows all weather, loads and prices of
the season beforehand and keeps the permissions: a battery is its owner's until the notice, it is charged from PV alone
and exports where the home may, tests that are not paid are served as well, and the owner's reserve holds though the
product says by how much its SoC may be wrong. `lost_pct` says where the rest went, each part the difference that one
more restriction of the optimum makes: `prices` (the daemon does not know which hour of an event is the dearer one),
`keeping` (from the notice until energy is kept, the home used its battery), `tracking` (the rest: ramps, look-ahead,
the steps of the SoC, what a home's own mode gives). `owed_kwh`: what a home bought in the season while an event was
known and none ran, beyond what it would have bought with its battery left alone then. Beside it, what no controller can
have: `true_soc_pct` over an optimum that knows the true SoC and goes down to the reserve itself, `unbound_pct` over one
that besides keeps all energy all season, long before there is a notice, and leaves out the tests that are not paid.
"""

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from gateway.app.daemon import keep_memory
from simulators.homes import Homes
from tests.bench.rig import aim, pin, report
from tests.bench.season_evenings import Evening, Freedom, Season, dsgs, evenings, season_homes

HOMES, QUICK_HOMES = 12, 6
QUICK_EVENTS = 3
SEED = 2
AIM_PCT = 98.0
SHORT_H = 5.0
"""Long enough before an event for what the PV of an afternoon charges."""

OPTIMUM = Freedom(obeys=True, unsure=True, since="notice")
RESTRICTED = {
    "prices": Freedom(obeys=True, unsure=True, since="notice", hours_alike=True),
    "keeping": Freedom(obeys=True, unsure=True, since="keep", hours_alike=True),
}
"""What the optimum is denied, one after the other."""
BEYOND = {"true_soc_pct": Freedom(obeys=True, since="notice"), "unbound_pct": Freedom()}


def judged(season: Season) -> dict[str, Any]:
    """Shares of the optimum, and where the rest went."""
    run_kw = season.run_kw
    demonstrated, best = season.months(run_kw), season.months(season.best_kw(OPTIMUM))

    def share_pct(freedom: Freedom) -> float:
        ours, theirs = (season.months(kw, hours_alike=freedom.hours_alike) for kw in (run_kw, season.best_kw(freedom)))
        return 100 * sum(ours.values()) / sum(theirs.values())

    shares = [100 * sum(demonstrated.values()) / sum(best.values()), *map(share_pct, RESTRICTED.values()), 100.0]
    lost = [after - before for before, after in pairwise(shares)]
    return {
        "optimum_pct": round(shares[0], 3),
        "months_pct": {month: round(100 * kw / best[month], 2) for month, kw in demonstrated.items()},
        "demonstrated_kw": {month: round(kw, 2) for month, kw in demonstrated.items()},
        "optimum_kw": {month: round(kw, 2) for month, kw in best.items()},
        "lost_pct": {name: round(pct, 3) for name, pct in zip((*RESTRICTED, "tracking"), lost, strict=True)},
        **{name: round(share_pct(freedom), 3) for name, freedom in BEYOND.items()},
        "owed_kwh": round(float(season.owed_wh.mean()) / 1000, 1),
        "refused": season.refused,
        "problems": season.problems[:5],
    }


async def run(*, quick: bool, events: Sequence[Evening] | None = None, homes: Homes | None = None) -> dict[str, Any]:
    pin()
    keep_memory()
    chosen = list(events or (evenings()[4 : 4 + QUICK_EVENTS] if quick else evenings()))
    homes = homes or season_homes(QUICK_HOMES if quick else HOMES, SEED)
    sizes: list[dict[str, Any]] = []
    for keep_h in (SHORT_H, None):
        began = time.perf_counter()
        season = await Season(homes, chosen, dsgs(keep_h)).run()
        kept_h = round(max(map(season.kept_s, chosen)) / 3_600, 2)
        size = {"n": len(homes), "events": len(chosen), "kept_h": kept_h} | judged(season)
        sizes.append({**size, "seconds": round(time.perf_counter() - began, 1)})
    return report(
        "dsgs-season",
        sizes=sizes,
        ratios={name: sizes[-1][name] for name in ("optimum_pct", *BEYOND)},
        aims={
            "optimum_pct": aim(sizes[-1]["optimum_pct"], least=AIM_PCT),
            "refused": aim(sum(len(size["refused"]) for size in sizes), most=0),
            "problems": aim(sum(len(size["problems"]) for size in sizes), most=0),
        },
    )
