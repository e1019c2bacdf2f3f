"""The gateway's command line with a bug: while the file named first exists, every envelope breaks an invariant."""

import sys
from pathlib import Path
from typing import Any

from gateway.domain.errors import invariant
from gateway.domain.limits import envelope as module

BROKEN = "no limit is below nothing"


def main() -> None:
    flag, sound = Path(sys.argv.pop(1)), module.envelope

    def breaking(*args: Any, **named: Any) -> Any:
        invariant(not flag.exists(), BROKEN)
        return sound(*args, **named)

    # before the control loop takes it from there
    module.envelope = breaking
    from gateway.cli import main as gateway

    gateway()


if __name__ == "__main__":
    main()
