"""The frame of every client script here: one request per line of stdin, one answer per line of stdout, both JSON.

A request is `{"do": "read" | "steer" | "release", "host", "port", ...}`, the answer `{"ok": {...}}` or
`{"error": text}`. These scripts run on the Python of the library they wrap and import nothing of the project. What they
answer is canonical (W, battery + = discharge, grid + = import, SoC in percent), turned from what the library itself
says of its signs.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

Action = Callable[..., Awaitable[dict[str, Any]]]


async def answer(actions: dict[str, Action], line: str) -> dict[str, Any]:
    """Carry out one request; what a library raises is the answer."""
    request = json.loads(line)
    action = actions[request.pop("do")]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return {"ok": await asyncio.wait_for(action(**request), 20)}
    except Exception as error:  # noqa: BLE001 - any failure of the library is what the test asks about
        return {"error": f"{type(error).__name__}: {error}"}


def serve(**actions: Action) -> None:
    """Answer until stdin ends."""
    out = sys.stdout
    for line in sys.stdin:
        out.write(json.dumps(asyncio.run(answer(actions, line))) + "\n")
        out.flush()
