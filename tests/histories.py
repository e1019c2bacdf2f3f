"""Searches for histories that break a promise: `python -m tests.histories --count 20000 [--seed N] [--jobs 2]`.

Histories come in parts of 100 with a seed each, counted up from the first. What breaks a promise is printed with its
seed, shrunk to the least that does, and the exit status is 1; `--seed N --count 100` makes that part again.
"""

import argparse
import json
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol

from tests.scenes.histories import Search

PART = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a part: how many histories were tried, until one broke a promise, and what that one says."""

    seed: int
    tried: int
    says: str = ""


class Searching(Protocol):
    """Tries histories; `tried` of them so far."""

    tried: int

    def run(self, number: int, count: int, *, shrink: bool = True) -> None:
        """Try `count` histories of the seed `number`; raises what the first that breaks a promise has to say."""
        ...


def part(make: Callable[[], Searching], seed: int, *, count: int, shrink: bool) -> Found:
    """Try `count` histories of one seed."""
    logging.disable(logging.CRITICAL)
    search = make()
    try:
        search.run(seed, count, shrink=shrink)
    except Exception as error:  # noqa: BLE001 (whatever a history raises is what it found)
        notes = [str(error), *getattr(error, "__notes__", [])]
        return Found(seed=seed, tried=search.tried, says="\n".join(notes))
    return Found(seed=seed, tried=search.tried)


def main(
    make: Callable[[], Searching] = Search, *, prog: str = "tests.histories", about: str | None = __doc__,
    part_count: int = PART,
) -> int:  # fmt: skip
    """The command; returns its exit status. `make`: a new search, `part_count`: how many histories a part has."""
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", description=about)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=None, help="of the first part; drawn if it is not given")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--first", action="store_true", help="end with the first that is found, and do not shrink it")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if asked.seed is None else asked.seed
    seeds = range(seed, seed + -(-asked.count // part_count))
    print(f"seeds {seeds[0]} to {seeds[-1]}, {part_count} histories each", file=sys.stderr)
    began, tried, broken = time.monotonic(), 0, []
    with ExitStack() as stack:
        each: Callable[..., Iterator[Found]] = map
        if asked.jobs > 1:
            each = stack.enter_context(ProcessPoolExecutor(max_workers=asked.jobs)).map
        for found in each(partial(part, make, count=min(part_count, asked.count), shrink=not asked.first), seeds):
            tried += found.tried
            if found.says:
                broken.append(found)
                print(f"seed {found.seed}: {found.says}", file=sys.stderr)
            if found.says and asked.first:
                break
    told = {"seed": seed, "histories": tried, "seconds": round(time.monotonic() - began, 1)}
    if asked.json:
        print(json.dumps(told | {"broken": [asdict(found) for found in broken]}))
    else:
        print(", ".join(f"{name} {value}" for name, value in told.items()), f"- broken {len(broken)}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
