"""Source trees of the gateway that run as processes: the one under test, and releases unpacked from their archives.

Nothing of the gateway is imported here: a tree is known by its command line, its REST surface and what it stores.
"""

import asyncio
import os
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulators import processes
from tests.e2e.rig import Daemon

ROOT = Path(__file__).parents[2]
RELEASES = Path(__file__).parent
AT = RELEASES / "at.py"
COMMAND_S = 60.0


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory with `gateway/` and `device_profiles/`."""

    root: Path

    @property
    def profiles(self) -> Path:
        return self.root / "device_profiles"

    @property
    def env(self) -> dict[str, str]:
        """What makes a child import this tree's gateway, whatever else is installed."""
        return {"PYTHONPATH": str(self.root), "COLUMNS": "200", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, *args: str, utc_ms: int | None = None) -> list[str]:
        """The command line; the wall clock begins at `utc_ms` if that is given. -P: the working directory is not
        searched for modules, or a run from the project's root would take the tree under test for every tree."""
        if utc_ms is None:
            return [sys.executable, "-P", "-m", "gateway", *args]
        return [sys.executable, "-P", str(AT), str(utc_ms), *args]

    async def cli(self, *args: str, utc_ms: int | None = None, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """One command to its end: exit code and everything it said."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*args, utc_ms=utc_ms),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            env=os.environ | self.env | dict(env or {}),
        )  # fmt: skip
        try:
            output, _ = await asyncio.wait_for(process.communicate(), COMMAND_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        return process.returncode or 0, output.decode(errors="replace")

    async def does(self, *args: str, utc_ms: int | None = None) -> str:
        """One command that must succeed; what it said."""
        code, output = await self.cli(*args, utc_ms=utc_ms)
        assert code == 0, (args, output)
        return output

    async def where(self) -> Path:
        """Where a child finds its gateway."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", "import gateway; print(gateway.__path__[0])",
            stdout=asyncio.subprocess.PIPE, env=os.environ | self.env,
        )  # fmt: skip
        output, _ = await process.communicate()
        return Path(output.decode().strip())


HERE = Tree(ROOT)
"""The tree under test."""


def unpacked(release: str, directory: Path) -> Tree:
    """A release from `tests/releases/<release>/gateway.tar.gz`."""
    root = directory / f"release-{release}"
    root.mkdir()
    with tarfile.open(RELEASES / release / "gateway.tar.gz") as archive:
        archive.extractall(root, filter="data")
    return Tree(root)


@dataclass(slots=True)
class TreeDaemon(Daemon):
    """A daemon of a tree. `utc_ms`: what its wall clock shows at the start, None = as it is; `env`: secrets."""

    tree: Tree = HERE
    utc_ms: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.change = {"profiles_dir": str(self.tree.profiles)} | dict[str, Any](self.change)
        self.write_config()
        command = self.tree.command("run", "--config", str(self.config), utc_ms=self.utc_ms)
        if self.release:
            command.append("--release")
        env = self.tree.env | dict(self.env)
        self.child = processes.Child("gateway", command, self.directory / "gateway.log", env=env)
