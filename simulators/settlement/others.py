"""The other programs' arithmetic, one function each."""

from collections.abc import Sequence

from simulators.settlement import Exact, exact

WHOLE = Exact(1)


def per_kwh(baseline_kwh: Exact, load_kwh: Exact, rate: Exact) -> Exact:
    """Pay for what a home drew less than its baseline; nothing is owed for more."""
    return max(Exact(0), baseline_kwh - load_kwh) * rate


def season_mean(events: Sequence[tuple[Exact, Exact]], rate: Exact, factor: Exact = WHOLE) -> Exact:
    """Pay for the mean over a season's events of energy (kWh) over hours; a missed event is (0, its hours)."""
    return sum((energy / hours for energy, hours in events), Exact(0)) / len(events) * factor * rate


def bid_hour(bid_kw: Exact, delivered_kw: Exact, price: Exact) -> Exact:
    """Capacity bidding of one hour: paid up to 105 % of the bid, half from 60 %, a penalty below that."""
    share = delivered_kw / bid_kw
    if share >= exact("0.75"):
        return min(delivered_kw, bid_kw * exact("1.05")) * price
    if share >= exact("0.6"):
        return delivered_kw * price / 2
    return -(exact("0.6") * bid_kw - delivered_kw) * price


def shares(pool_cents: int, weights: Sequence[Exact]) -> list[int]:
    """A pool by weights, to the cent: the largest remainders get what is left, of equal ones the first."""
    whole = sum(weights, Exact(0))
    parts = [pool_cents * weight / whole for weight in weights]
    paid = [part.numerator // part.denominator for part in parts]
    order = sorted(range(len(parts)), key=lambda i: (paid[i] - parts[i], i))
    for i in order[: pool_cents - sum(paid)]:
        paid[i] += 1
    return paid
