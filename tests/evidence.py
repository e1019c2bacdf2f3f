"""What others confirm of the profiles: takes every mistake in turn and sees who notices it.

`python -m tests.evidence` prints the quantities that nobody confirms; `--write` writes `device_profiles/confirmed.json`
and its table in `device_profiles/README.md`. Client libraries run where `make foreign-ready` has made them.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from gateway.profiles.confirmed import FILE, Confirmation, Confirmed, confirmation_of, load_confirmed
from gateway.profiles.language.product import ProfileDocument
from gateway.profiles.loader import load_profiles
from tests.foreign.captures import found_by_captures
from tests.foreign.commands import found_by_commands
from tests.foreign.mutants import QUANTITIES, mutants
from tests.foreign.peers import FOREIGN, Foreign
from tests.foreign.search import found_by_client

ROOT = Path(__file__).parents[1]
PROFILES = ROOT / "device_profiles"
README = PROFILES / "README.md"
TITLES = {"soc_pct": "SoC", "battery_w": "battery", "grid_w": "grid", "control": "control"}
HEAD = "| profile | SoC | battery sign | grid sign | control |\n|---|---|---|---|---|\n"
Mistake = tuple[str, str]


def documents() -> dict[str, ProfileDocument]:
    """Profiles with values at addresses; firmware that speaks the gateway's own way has nothing to confirm."""
    return {name: codec.document for name, codec in load_profiles(PROFILES).items() if codec.product is not None}


def collected(
    products: Mapping[str, ProfileDocument], noticed: Mapping[Foreign, Mapping[Mistake, bool]]
) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Who notices which mistake: the published samples and commands, and the client libraries as `noticed` says."""
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for name, document in products.items():
        samples = found_by_captures(document) | found_by_commands(document)
        clients = [foreign for foreign in noticed if foreign.profile == name]
        for quantity in QUANTITIES:
            for mutant in mutants(document, quantity):
                mistake = (quantity, mutant.name)
                who = [foreign.library for foreign in clients if noticed[foreign].get(mistake)]
                found.setdefault(name, {}).setdefault(quantity, {})[mutant.name] = who + samples.get(mistake, [])
    return found


async def noticed_by_clients(products: Mapping[str, ProfileDocument]) -> dict[Foreign, dict[Mistake, bool]]:
    """What every client library notices that is asked through registers. Raises where one is not installed."""
    return {one: await found_by_client(products[one.profile], one) for one in FOREIGN if one.on_registers}


def table(confirmed: Confirmed) -> str:
    """One row per profile, in the order of their names."""
    rows = []
    for name, quantities in sorted(confirmed.items()):
        cells = [_cell(confirmation_of(quantities[one])) if one in quantities else "-" for one in QUANTITIES]
        rows.append(f"| `{name}` | {' | '.join(cells)} |\n")
    return HEAD + "".join(rows)


def _cell(found: Confirmation) -> str:
    if found.confirmed:
        return ", ".join(found.by)
    missing = ", ".join(found.unnoticed)
    return f"unconfirmed ({missing}; else {', '.join(found.by)})" if found.by else "unconfirmed"


def written(text: str, confirmed: Confirmed) -> str:
    """The README with the table as it should be."""
    begin = text.index(HEAD.splitlines()[0])
    end = text.index("\n\n", begin) + 1
    return text[:begin] + table(confirmed) + text[end:]


def main() -> None:
    products = documents()
    if "--write" in sys.argv[1:]:
        confirmed = collected(products, asyncio.run(noticed_by_clients(products)))
        (PROFILES / FILE).write_text(json.dumps(confirmed, indent=1) + "\n", encoding="utf-8")
        README.write_text(written(README.read_text(encoding="utf-8"), confirmed), encoding="utf-8")
    for name, quantities in load_confirmed(PROFILES).items():
        for quantity, mistakes in quantities.items():
            found = confirmation_of(mistakes)
            if not found.confirmed:
                print(f"{name}: {TITLES[quantity]}: nobody notices {', '.join(found.unnoticed)}")


if __name__ == "__main__":
    main()
