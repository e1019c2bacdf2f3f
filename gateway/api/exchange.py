"""Requests into bodies, bodies into answers: what every route needs."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, get_origin

from aiohttp import web
from pydantic import BaseModel, ValidationError

from gateway.api.models import Problem
from gateway.domain.errors import GatewayError, InvalidInput, PeerBusy, StorageError
from gateway.schemas.body import problems_of, read_json
from gateway.schemas.event import MAX_BODY_BYTES

PAGE_MAX = 1_000
BODY_BYTES_MAX = MAX_BODY_BYTES
PART_BYTES = 1 << 14

B = TypeVar("B", bound=BaseModel)


def json_answer(body: BaseModel, *, status: int = 200) -> web.Response:
    return web.Response(body=body.model_dump_json().encode(), status=status, content_type="application/json")


async def json_list(
    request: web.Request, body: BaseModel | bytes, member: str, items: Iterable[BaseModel] | AsyncIterable[BaseModel]
) -> web.StreamResponse:
    """`body`, whose list `member` is empty, with the items in that list. They are made as they are written, and other
    tasks run after every part; what is made of an item must not fail."""
    head = body if isinstance(body, bytes) else body.model_dump_json().encode()
    begin, end = head.split(f'"{member}":[]'.encode(), 1)
    part = bytearray(begin + f'"{member}":['.encode())
    response: web.StreamResponse | None = None
    first = True
    async for item in _one_by_one(items):
        part += b"" if first else b","
        part += item.model_dump_json().encode()
        first = False
        if len(part) >= PART_BYTES:
            if response is None:
                response = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8"})
                await response.prepare(request)
            await response.write(bytes(part))
            part.clear()
            await asyncio.sleep(0)
    part += b"]" + end
    if response is None:
        return web.Response(body=bytes(part), content_type="application/json")
    await response.write_eof(bytes(part))
    return response


async def _one_by_one(items: Iterable[BaseModel] | AsyncIterable[BaseModel]) -> AsyncIterator[BaseModel]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for item in items:
        yield item


@contextmanager
def asking_peer() -> Iterator[None]:
    """While a peer is asked on somebody's behalf: whatever is wrong with its answer is told as that, and is no fault of
    ours."""
    try:
        yield
    except (InvalidInput, StorageError):
        raise
    except (GatewayError, OSError) as error:
        raise PeerBusy(str(error)) from error


def problem(status: int, error: str, problems: Sequence[str] = ()) -> web.Response:
    return json_answer(Problem(error=error, problems=list(problems)), status=status)


async def small_body(request: web.Request) -> bytes:
    """The whole body, which is JSON and never large; refused as soon as it is, whatever length it announces."""
    size = request.content_length or 0
    body = bytearray()
    if size <= BODY_BYTES_MAX:
        async for chunk in request.content.iter_any():
            body += chunk
            size = len(body)
            if size > BODY_BYTES_MAX:
                break
    if size > BODY_BYTES_MAX:
        raise web.HTTPRequestEntityTooLarge(
            max_size=BODY_BYTES_MAX, actual_size=size, reason=f"larger than {BODY_BYTES_MAX} bytes"
        )
    return bytes(body)


async def read_body(request: web.Request, kind: type[B]) -> B:
    """A body of `kind`. Raises InvalidInput with every fault."""
    return read_json(kind, await small_body(request))


def read_query(request: web.Request, kind: type[B]) -> B:
    """The query as a `kind`: of a parameter that is given several times the last counts, unless it is a list. Raises
    InvalidInput with every fault."""
    lists = {field.alias or name for name, field in kind.model_fields.items() if get_origin(field.annotation) is list}
    given = {name: request.query.getall(name) for name in request.query}
    try:
        return kind.model_validate({name: v if name in lists else v[-1] for name, v in given.items()})
    except ValidationError as error:
        raise InvalidInput(problems_of(error)) from error
