"""The table of products in the README, made from the profiles: `python -m tests.products --write` writes it."""

import sys
from pathlib import Path

from gateway.profiles.loader import load_profiles
from gateway.profiles.summary import summary

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
HEAD = "| product | speaks | control | when nobody renews | evidence |\n|---|---|---|---|---|\n"
ENDS = {
    "device_timer": "the device's timer",
    "in_command": "the lease in every command",
    "implicit": "the device, by itself",
    "none": "the gateway's release plan",
    "": "nothing to end",
}


def table() -> str:
    """One row per profile, in the order of their names."""
    rows = []
    for found in map(summary, load_profiles(ROOT / "device_profiles").values()):
        ends = ENDS.get(found.watchdog, found.watchdog.replace("_", " "))
        lease = f", {found.lease_s:g} s" if found.lease_s is not None and found.watchdog not in ("", "none") else ""
        product = found.product if found.product.startswith(found.maker) else f"{found.maker} {found.product}"
        name = f"[{product}](device_profiles/{found.profile}.yaml)"
        control = found.control.replace("_", " ")
        rows.append(f"| {name} | {found.transport} | {control} | {ends}{lease} | {found.evidence} |\n")
    return HEAD + "".join(rows)


def written(text: str) -> str:
    """The README with the table as it should be."""
    begin = text.index(HEAD.splitlines()[0])
    end = text.index("\n\n", begin) + 1
    return text[:begin] + table() + text[end:]


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        sys.stdout.write(table())
