"""`python -m simulators demo`: the whole system on simulated parts, with a verdict. `python -m simulators evening`: the
same with the aggregator's dispatch of one evening. `python -m simulators fleet`: homes alone, until they are stopped.
`python -m simulators season`: a season of a program, and what every home is paid.

Exit code 0 = it held (or was stopped), 1 = it did not hold, 2 = it could not be run.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from simulators import evening as evenings
from simulators.demo import EVENT_S, Options, play
from simulators.disturbances import EVENT_S as LASTING_S
from simulators.disturbances import KINDS
from simulators.fleet import FleetOptions, live
from simulators.oracle import Verdict
from simulators.season.play import PROGRAM, YEAR, SeasonOptions
from simulators.season.play import play as play_season


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulators", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="broker, homes, gateway and platform, judged from outside")
    demo.add_argument("--devices", type=int, default=200)
    demo.add_argument("--each", type=int, default=3, help="homes of every polled product among the devices (0 = none)")
    demo.add_argument("--for", dest="event_s", type=float, help="length of the event in s (min 30)")
    demo.add_argument("--broker", choices=("auto", "mosquitto", "standin"), default="auto")
    demo.add_argument("--calm", action="store_true", help="no faults, kills or outages")
    demo.add_argument("--disturb", choices=KINDS, default="kill", help="what happens in mid-event")
    demo.add_argument("--seed", type=int, default=7)
    demo.add_argument("--json", action="store_true", help="end with one JSON object on standard output")
    demo.add_argument("--keep", type=Path, help="work in this directory and keep it")
    evening = commands.add_parser("evening", help="an evening of the aggregator's dispatch, judged from outside")
    evening.add_argument("--devices", type=int, default=200)
    evening.add_argument("--hour", type=float, default=60.0, help="length of what stands for an hour in s (min 12)")
    evening.add_argument("--interval", type=int, default=10, help="length of published intervals in s")
    evening.add_argument("--broker", choices=("auto", "mosquitto", "standin"), default="auto")
    evening.add_argument("--operator", action="store_true", help="somebody asks for searches; needed below 40 s")
    evening.add_argument("--seed", type=int, default=7)
    evening.add_argument("--json", action="store_true", help="end with one JSON object on standard output")
    evening.add_argument("--keep", type=Path, help="work in this directory and keep it")
    fleet = commands.add_parser("fleet", help="simulated homes on a broker, until stopped")
    fleet.add_argument("--devices", type=int, required=True)
    fleet.add_argument("--each", type=int, default=0, help="homes of every polled product among the devices")
    fleet.add_argument("--broker", default="mqtt://127.0.0.1:1883", help="URL of the broker")
    fleet.add_argument("--inventory", type=Path, default=Path("fleet.csv"), help="file that enrolls them, written here")
    fleet.add_argument("--seed", type=int, default=7)
    _add_season(commands)
    args = parser.parse_args()
    if args.command == "season":
        if not 1 <= args.logged <= args.homes or (args.events is not None and args.events < 1):
            parser.error("at least one home and one event, and no more logged homes than homes")
        return _run(_season(_chosen(args), as_json=args.json), "the season could not be played")
    if args.command == "fleet":
        if args.devices < 1 or args.each < 0:
            parser.error("at least one device, and no negative number of each product")
        homes = FleetOptions(
            devices=args.devices, each=args.each, url=args.broker, inventory=args.inventory, seed=args.seed
        )
        return _run(_fleet(homes), "the homes could not be run")
    if args.command == "evening":
        if args.devices < 20 or args.hour < 12:
            parser.error("at least 20 devices and 12 s")
        evening_of = evenings.Options(
            devices=args.devices, hour_s=args.hour, interval_s=args.interval, broker=args.broker,
            operator=args.operator, seed=args.seed, keep=args.keep,
        )  # fmt: skip
        return _run(_told(evenings.play(evening_of), as_json=args.json), "the evening could not be run")
    lasts_s = EVENT_S if args.calm else LASTING_S.get(args.disturb, EVENT_S)
    event_s = lasts_s if args.event_s is None else args.event_s
    if args.devices < 20 or event_s < 30:
        parser.error("at least 20 devices and 30 s")
    options = Options(
        devices=args.devices,
        each=args.each,
        event_s=event_s,
        broker=args.broker,
        chaos=not args.calm,
        disturbance=args.disturb,
        seed=args.seed,
        keep=args.keep,
    )
    return _run(_told(play(options), as_json=args.json), "the demo could not be run")


def _add_season(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    season = commands.add_parser("season", help="a season of a program at simulated homes, judged to the cent")
    season.add_argument("--homes", type=int, default=2_000)
    season.add_argument("--program", choices=[PROGRAM], default=PROGRAM)
    season.add_argument("--year", type=int, choices=[YEAR], default=YEAR)
    season.add_argument("--events", type=int, help="only the first events of the season")
    season.add_argument("--logged", type=int, default=200, help="homes that go through spool and interval log")
    season.add_argument("--seed", type=int, default=7)
    season.add_argument("--months", type=Path, help="write every home's month with its bound to this CSV file")
    season.add_argument("--json", action="store_true", help="end with one JSON object on standard output")


def _chosen(args: argparse.Namespace) -> SeasonOptions:
    return SeasonOptions(homes=args.homes, seed=args.seed, logged=args.logged, events=args.events, months=args.months)


def _run(played: Coroutine[Any, Any, int], failed: str) -> int:
    """Its exit code, or 2 and the reasons why it could not be run."""
    try:
        return asyncio.run(played)
    except KeyboardInterrupt:
        return 2
    except (RuntimeError, OSError, TimeoutError, ValueError, ExceptionGroup) as error:
        for cause in error.exceptions if isinstance(error, ExceptionGroup) else (error,):
            print(f"{failed}: {cause!r}", file=sys.stderr)
        return 2


async def _fleet(options: FleetOptions) -> int:
    await live(options)
    return 0


async def _told(played: Coroutine[Any, Any, Verdict], *, as_json: bool) -> int:
    verdict = await played
    if as_json:
        print(json.dumps(verdict.as_dict()))
    else:
        _tell(verdict.as_dict())
    return 0 if verdict.ok else 1


async def _season(options: SeasonOptions, *, as_json: bool) -> int:
    verdict = play_season(options)
    if as_json:
        print(json.dumps(verdict.as_dict()))
    else:
        _tell(verdict.as_dict())
    return 0 if verdict.ok else 1


def _tell(found: dict[str, object]) -> None:
    for name, value in found.items():
        if name not in ("problems", "faults", "minutes", "shares"):
            print(f"{name:24} {value}")
    for name in ("minutes", "shares", "faults", "problems"):
        items = found.get(name)
        if isinstance(items, list):
            for item in items:
                print(f"{name:24} {item}")
    print("VERDICT: held" if found["ok"] else "VERDICT: did not hold")


if __name__ == "__main__":
    sys.exit(main())
