"""`python -m tests.bench NAME [--quick] --json`: one bench, one JSON object."""

import argparse
import importlib
import json
import sys

import uvloop

BENCHES = (
    "ingest", "paced", "fanout", "mixed", "tick", "memory", "modbus", "allocate", "track", "csv", "log", "outage",
    "edge", "stretch", "season-market", "dsgs-season", "persistence", "columns", "season",
    "beside", "signal",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, one round")
    parser.add_argument("--json", action="store_true", help="one line of JSON (otherwise indented)")
    args = parser.parse_args()
    bench = importlib.import_module(f"tests.bench.{args.name.replace('-', '_')}")
    result = uvloop.run(bench.run(quick=args.quick))
    print(json.dumps(result, indent=None if args.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
