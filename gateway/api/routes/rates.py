"""The rates that enrollments are paid by."""

from datetime import date
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from gateway.api.exchange import json_answer, problem, read_query
from gateway.api.rate_models import RateList
from gateway.api.route import RestRoute
from gateway.api.views.rates import RateView
from gateway.domain.errors import InvalidInput
from gateway.domain.types import is_device_id
from gateway.schemas import operations as ops

DAY = r"^\d{4}-\d{2}-\d{2}$"


class RatesQuery(BaseModel):
    """The local day of the event that is asked about; absent = today."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: Annotated[str | None, Field(pattern=DAY)] = None

    def day(self) -> date | None:
        """The day. Raises InvalidInput."""
        try:
            return None if self.on is None else date.fromisoformat(self.on)
        except ValueError as error:
            raise InvalidInput([f"on: {error}"]) from error


class RateRoutes:
    """The routes of rates."""

    def __init__(self, rates: RateView) -> None:
        self._rates = rates

    async def rates(self, request: web.Request) -> web.StreamResponse:
        name, day = request.match_info["id"], read_query(request, RatesQuery).day()
        found = await self._rates.of(name, day) if is_device_id(name) else None
        return (
            problem(404, "nothing is stated of enrollments of this device or meter")
            if found is None
            else json_answer(found)
        )

    ROUTES = (
        RestRoute(
            operation=ops.SHOW_RATES, handler=rates, query=RatesQuery,
            summary="Which rate an enrollment is paid by for an event on a day, by which rules, how well known",
            answers={200: RateList}, problems=(400, 404, 503),
        ),
    )  # fmt: skip
