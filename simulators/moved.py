"""The gateway's command line on a machine whose clocks are moved.

`python -m simulators.moved BY_MS AWAY_MS ARGUMENT ...`: the wall clock is BY_MS ahead, and AWAY_MS have passed while
the machine was off, on every clock. The event loop's own timers are left as they are.
"""

import runpy
import sys
import time

_wall_ns, _read_ns = time.time_ns, time.clock_gettime_ns


def main() -> None:
    """Run the gateway with the arguments that follow the two numbers."""
    by_ns, away_ns = (int(text) * 1_000_000 for text in sys.argv[1:3])

    def wall_ns() -> int:
        return _wall_ns() + by_ns + away_ns

    def read_ns(clock: int) -> int:
        return _read_ns(clock) + away_ns

    time.time_ns, time.clock_gettime_ns = wall_ns, read_ns
    time.time = lambda: wall_ns() / 1e9
    sys.argv = ["gateway", *sys.argv[3:]]
    runpy.run_module("gateway", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
