"""`python -m simulators demo`: the whole system on simulated parts, with a verdict.

Exit code 0 = it held, 1 = it did not, 2 = it could not be run.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from simulators.demo import EVENT_S, Options, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulators", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="broker, homes, gateway and platform, judged from outside")
    demo.add_argument("--devices", type=int, default=200)
    demo.add_argument("--each", type=int, default=3, help="homes of every polled product among the devices (0 = none)")
    demo.add_argument("--for", dest="event_s", type=float, default=EVENT_S, help="length of the event in s (min 30)")
    demo.add_argument("--broker", choices=("auto", "mosquitto", "standin"), default="auto")
    demo.add_argument("--calm", action="store_true", help="no faults, kills or outages")
    demo.add_argument("--disturb", choices=("kill", "term", "broker"), default="kill", help="what happens in mid-event")
    demo.add_argument("--seed", type=int, default=7)
    demo.add_argument("--json", action="store_true", help="end with one JSON object on standard output")
    demo.add_argument("--keep", type=Path, help="work in this directory and keep it")
    args = parser.parse_args()
    if args.devices < 20 or args.event_s < 30:
        parser.error("at least 20 devices and 30 s")
    options = Options(
        devices=args.devices,
        each=args.each,
        event_s=args.event_s,
        broker=args.broker,
        chaos=not args.calm,
        disturbance=args.disturb,
        seed=args.seed,
        keep=args.keep,
    )
    try:
        verdict = asyncio.run(play(options))
    except KeyboardInterrupt:
        return 2
    except (RuntimeError, OSError, TimeoutError, ExceptionGroup) as error:
        for cause in error.exceptions if isinstance(error, ExceptionGroup) else (error,):
            print(f"the demo could not be run: {cause!r}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(verdict.as_dict()))
    else:
        _tell(verdict.as_dict())
    return 0 if verdict.ok else 1


def _tell(found: dict[str, object]) -> None:
    for name, value in found.items():
        if name not in ("problems", "faults", "minutes"):
            print(f"{name:24} {value}")
    for name in ("minutes", "faults", "problems"):
        items = found[name]
        if isinstance(items, list):
            for item in items:
                print(f"{name:24} {item}")
    print("VERDICT: held" if found["ok"] else "VERDICT: did not hold")


if __name__ == "__main__":
    sys.exit(main())
