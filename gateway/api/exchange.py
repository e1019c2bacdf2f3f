"""Requests into bodies, bodies into answers: what every route needs."""

from collections.abc import Sequence
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from gateway.api.models import Problem
from gateway.domain.errors import InvalidInput
from gateway.schemas.event import problems_of

PAGE_MAX = 1_000

B = TypeVar("B", bound=BaseModel)


def json_answer(body: BaseModel, *, status: int = 200) -> web.Response:
    return web.Response(body=body.model_dump_json().encode(), status=status, content_type="application/json")


def problem(status: int, error: str, problems: Sequence[str] = ()) -> web.Response:
    return json_answer(Problem(error=error, problems=list(problems)), status=status)


async def read_body(request: web.Request, kind: type[B]) -> B:
    """A body of `kind`. Raises InvalidInput with every fault."""
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        raise InvalidInput(problems_of(error)) from error


def number(request: web.Request, name: str, default: int, most: int) -> int:
    """A number of the query, from 0 to `most`. Raises InvalidInput."""
    text = request.query.get(name, str(default))
    if not text.isdecimal() or len(text) > len(str(most)) or int(text) > most:
        raise InvalidInput([f"{name}: a whole number from 0 to {most}"])
    return int(text)
