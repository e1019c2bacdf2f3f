"""The gateway's command line on a machine whose clocks show another time: `at.py UTC_MS [ARGUMENT ...]`.

What a release stored grows old: events and intervals are forgotten some weeks after they are over. A process that is
to find them runs as if it had been started then, and time passes slowly, so that a slow machine sees no more of it than
a fast one. The event loop's own timers are left as they are. The standard library is all that this needs.
"""

import runpy
import sys
import time

PACE = 20
_wall_ns, _read_ns = time.time_ns, time.clock_gettime_ns
_began_ns, _first_ns = _wall_ns(), int(sys.argv[1]) * 1_000_000
_began_at: dict[int, int] = {}


def _time_ns() -> int:
    return _first_ns + (_wall_ns() - _began_ns) // PACE


def _time() -> float:
    return _time_ns() / 1e9


def _clock_gettime_ns(clock: int) -> int:
    now_ns = _read_ns(clock)
    began_ns = _began_at.setdefault(clock, now_ns)
    return began_ns + (now_ns - began_ns) // PACE


if __name__ == "__main__":
    time.time_ns, time.time, time.clock_gettime_ns = _time_ns, _time, _clock_gettime_ns
    sys.argv = ["gateway", *sys.argv[2:]]
    runpy.run_module("gateway", run_name="__main__", alter_sys=True)
