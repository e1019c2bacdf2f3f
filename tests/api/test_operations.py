"""An operation is declared once: server, document and command line know the same ones."""

import ast
from pathlib import Path

import pytest

from gateway.api.openapi import ROUTES
from gateway.schemas import operations
from gateway.schemas.operations import SHOW_EVENT, Operation
from tests.api.test_app import rig

GATEWAY = Path(__file__).parents[2] / "gateway"
DECLARED = [value for value in vars(operations).values() if isinstance(value, Operation)]


def test_every_operation_has_one_route_and_every_route_an_operation() -> None:
    assert len(set(DECLARED)) == len(DECLARED)
    assert sorted(map(repr, DECLARED)) == sorted(repr(route.operation) for route in ROUTES)


def test_paths_of_rest_stand_in_one_module_alone() -> None:
    found = {
        str(path.relative_to(GATEWAY))
        for path in sorted(GATEWAY.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and str(node.value).startswith("/v1/")
    }
    assert found == {"schemas/operations.py", "former_names.py"}


@pytest.mark.parametrize("name", ["a", "a/b", "ä?#", "..", "%2F", "{id}"])
def test_parameter_of_a_path_is_one_segment_whatever_is_in_it(name: str) -> None:
    target = SHOW_EVENT.target({"id": name}, "limit=1")
    head, _, segment = target.removesuffix("?limit=1").rpartition("/")
    assert head == "/v1/dispatch-events"
    assert segment
    assert not set(segment) & set("/?#{}")


async def test_route_that_is_read_answers_head_too() -> None:
    async with rig() as r, r.client.head("/v1/devices") as reply:
        assert (reply.status, await reply.read()) == (200, b"")
