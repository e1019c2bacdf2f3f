"""What a home did on a day, in words."""

from datetime import date
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.exchange import json_answer, problem, read_query
from gateway.api.explained_models import HomeDayBody
from gateway.api.route import RestRoute
from gateway.api.views.explained import ExplainedView
from gateway.domain.errors import InvalidInput
from gateway.domain.types import is_device_id
from gateway.schemas import operations as ops
from gateway.services.settings import TimeZone

DAY = r"^\d{4}-\d{2}-\d{2}$"


class ExplainedQuery(BaseModel):
    """A local day, absent = yesterday, and the time zone that it is a day of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: Annotated[str | None, Field(pattern=DAY)] = None
    zone: TimeZone = "UTC"

    def day(self) -> date | None:
        """The day. Raises InvalidInput."""
        try:
            return None if self.on is None else date.fromisoformat(self.on)
        except ValueError as error:
            raise InvalidInput([f"on: {error}"]) from error


class ExplainedRoutes:
    """The routes of what homes did."""

    def __init__(self, days: ExplainedView) -> None:
        self._days = days

    async def explain(self, request: web.Request) -> web.StreamResponse:
        query, home = read_query(request, ExplainedQuery), request.match_info["id"]
        day = query.day()
        found = await self._days.of(home, day, query.zone) if is_device_id(home) else None
        return problem(404, "no such home") if found is None else json_answer(found)

    ROUTES = (
        RestRoute(
            operation=ops.EXPLAIN_HOME, handler=explain, query=ExplainedQuery,
            summary="What the batteries of a home did on a local day, in words and figures",
            answers={200: HomeDayBody}, problems=(400, 404, 503),
        ),
    )  # fmt: skip
