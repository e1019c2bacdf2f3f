"""What a tick observes of the devices before it decides anything."""

from dataclasses import dataclass

from gateway.domain.control.authority import unguaranteed
from gateway.domain.control.reach import Reach
from gateway.domain.fleet.fleet import Snapshot
from gateway.domain.fleet.measured import Power, power_of
from gateway.domain.types import Bools, Ints, Now


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """`follows`: the devices that obey; `reach`: those that can be told anything; `power`: what each device does;
    `guaranteed`: those that keep the owner's reserve by themselves."""

    now: Now
    snapshot: Snapshot
    follows: Bools
    reach: Reach
    power: Power
    guaranteed: Bools


def observe(snapshot: Snapshot, now: Now, before_ms: Ints, *, follows: Bools, reach: Reach) -> Observed:
    """One tick's look at the fleet. `before_ms`: reading times as of the last tick (shorter if devices were added)."""
    return Observed(
        now=now,
        snapshot=snapshot,
        follows=follows,
        reach=reach,
        power=power_of(snapshot, now, before_ms),
        guaranteed=~unguaranteed(snapshot),
    )
