"""A fuzzer that others wrote (schemathesis) reads the OpenAPI document and asks a real daemon everything that it may
mean, as a caller of every scope: no answer that is not described, none that is not of its shape, nothing taken that the
document forbids, and no failure.

Not checked: that whatever the document allows is taken. Some rules join parameters ("to: must be later than from"), and
some name what exists.
"""

import asyncio
import sys
from pathlib import Path

import pytest

from gateway.api.access.callers import hash_of
from gateway.domain.access import Scope
from tests.e2e.rig import Daemon, running
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e

DOCUMENT = Path(__file__).parents[2] / "deploy" / "api" / "openapi.json"
CHECKS = (
    "not_a_server_error,status_code_conformance,response_schema_conformance,negative_data_rejection,unsupported_method"
)
WITHIN_S = 300
MANY, FEW = 10, 1
"""Examples of each route: for who may do everything, and for who may do one thing."""


def token_of(name: str) -> str:
    return f"token-of-{name}-0123456789"


async def fuzzed(directory: Path, url: str, name: str, examples: int, *, seed: int = 1) -> tuple[int, str]:
    """Exit status and last words of a run as a caller, which keeps its files in `directory`. `readyz` says 503 while
    dispatch is stopped, as it is here now and then."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", str(DOCUMENT), "--url", url, "--checks", CHECKS,
        "--exclude-path", "/readyz", "-H", f"Authorization: Bearer {token_of(name)}", "-n", str(examples),
        "--seed", str(seed), "--workers", "1", "--phases", "examples,coverage,fuzzing", "--generation-database", "none",
        "--suppress-health-check", "all", "--no-color", "--warnings", "off",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=directory,
    )  # fmt: skip
    async with asyncio.timeout(WITHIN_S):
        out, _ = await child.communicate()
    return int(child.returncode or 0), out.decode()[-6_000:]


async def test_daemon_answers_every_caller_as_its_document_says(tmp_path: Path) -> None:
    names: dict[str, tuple[Scope, ...]] = {"everything": tuple(Scope), **{scope.value: (scope,) for scope in Scope}}
    lines = [
        f"  {name}: {{scopes: [{', '.join(scopes)}], tokens: ['sha256:{hash_of(token_of(name).encode()).hex()}']}}"
        for name, scopes in names.items()
    ]
    (tmp_path / "access.yaml").write_text("\n".join(["callers:", *lines]), encoding="utf-8")
    async with standin_process(tmp_path) as broker:
        daemon = Daemon(tmp_path, broker.port)
        daemon.change = {"http": {"host": "127.0.0.1", "port": daemon.http_port, "access": "access.yaml"}}
        daemon.write_config()
        await daemon.enroll(["a", "b", "c"])
        async with running(daemon):
            for name in names:
                status, said = await fuzzed(tmp_path, daemon.url, name, MANY if name == "everything" else FEW)
                assert status == 0, f"as {name}: {said}"
            daemon.child.check()
