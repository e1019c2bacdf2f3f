"""Checks the order of control sequences: timer and value first, then what switches control on.

Cut anywhere, a device then has the old or the whole new setpoint, never the power that somebody left in its registers.
"""

from collections.abc import Iterator, Mapping, Sequence

from gateway.profiles.language.control import Control, Step, Watchdog
from gateway.profiles.language.points import Match, Reading, Scalar

POWERED = ("discharge", "charge", "hold")
VALUES = ("setpoint_w", "magnitude_w", "grid_target_w", "inverter_target_w", "lease")


def order_faults(control: Control, readings: Mapping[str, Reading], watchdog: Watchdog | None) -> Iterator[str]:
    """Values that are set after the switch, where the profile gives no reason."""
    if not control.switch_first:
        yield from _late(control, _switches(control, readings), _values(control, watchdog))


def _late(control: Control, switches: set[tuple[str, Scalar]], values: set[str]) -> Iterator[str]:
    for name in (*POWERED, "block"):
        steps, begin = control.sequences()[name], len(control.begin)
        on, given = "", set[str]()
        for i, step in enumerate((*control.begin, *steps) if steps else ()):
            late = sorted({part.write for part in _parts(step) if part.write in values} - given) if on else []
            place = f"begin.{i}" if i < begin else f"{name}.{i - begin}"
            if late:
                yield f"{place}: {late[0]!r} is set after {on!r} has switched on; if it must be, switch_first says why"
                break
            given |= set(step.touched())
            on = on or next((part.write for part in _parts(step) if part.write and _is(part, switches)), "")


def _is(part: Step, switches: set[tuple[str, Scalar]]) -> bool:
    return (part.write, part.value) in switches


def _values(control: Control, watchdog: Watchdog | None) -> set[str]:
    """Points that hold a setpoint or the timer."""
    sequences = [control.sequences()[name] for name in (*POWERED, "block")]
    found = {part.write for steps in sequences for step in steps for part in _parts(step) if part.source in VALUES}
    return {name for name in (*found, watchdog.point if watchdog else None) if name is not None}


def _switches(control: Control, readings: Mapping[str, Reading]) -> set[tuple[str, Scalar]]:
    """Constants that switch control on: those by which the product then reads remote; where its reading does not tell,
    those that every power sequence writes to a point that a release sets back."""
    written = {
        (part.write, part.value)
        for steps in (control.begin, *(control.sequences()[name] for name in (*POWERED, "block")))
        for step in steps
        for part in _parts(step)
        if part.write is not None and part.value is not None
    }
    mode = readings.get("mode")
    remote = [match for case in (mode.cases if mode else ()) if case.value == "remote" for match in case.when]
    found = {(name, value) for name, value in written for match in remote if match.point == name and _on(match, value)}
    if found:
        return found
    given_back = {name for step in control.release for name in step.touched()}
    always = set.intersection(*(_constants(control.sequences()[name]) for name in POWERED)) & given_back
    return {(name, value) for name, value in written if name in always}


def _on(match: Match, value: Scalar) -> bool:
    if not isinstance(value, int) or isinstance(value, bool) or match.equals:
        return value in match.equals
    bits = match.all_bits or match.any_bits or 0
    return value & bits == bits if match.all_bits is not None else bool(value & bits)


def _constants(steps: Sequence[Step]) -> set[str]:
    return {part.write for step in steps for part in _parts(step) if part.write is not None and part.value is not None}


def _parts(step: Step) -> tuple[Step, ...]:
    return step.together or (step,)
