"""The gateway's command line with a bug, once the file named first exists. Its text says where: in `control` every
envelope breaks an invariant, in `ingest` no energy can be counted, in `recovery` what was stored cannot be read."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.domain.errors import invariant
from gateway.domain.intervals.engine import Engine
from gateway.domain.limits import envelope as limits
from gateway.storage import recovery

BROKEN = "no limit is below nothing"


def breaking(sound: Callable[..., Any], flag: Path, part: str) -> Callable[..., Any]:
    """The same, while nothing is broken."""

    def call(*args: Any, **named: Any) -> Any:
        invariant(not flag.exists() or flag.read_text(encoding="ascii") != part, BROKEN)
        return sound(*args, **named)

    return call


def main() -> None:
    flag = Path(sys.argv.pop(1))
    # before anybody has taken them from there
    limits.envelope = breaking(limits.envelope, flag, "control")
    recovery.recover = breaking(recovery.recover, flag, "recovery")
    Engine.ingest = breaking(Engine.ingest, flag, "ingest")  # type: ignore[method-assign]
    from gateway.cli import main as gateway

    gateway()


if __name__ == "__main__":
    main()
