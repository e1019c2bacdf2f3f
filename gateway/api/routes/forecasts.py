"""What a program's fleet will give."""

from aiohttp import web

from gateway.api.exchange import json_answer, problem
from gateway.api.forecast_models import ForecastBody, NextForecastBody, PowerForecastBody
from gateway.api.route import RestRoute
from gateway.domain.programs.forecast import PowerForecast
from gateway.schemas import operations as ops
from gateway.services.programs.forecasts import ProgramForecasts


class ForecastRoutes:
    """The routes of forecasts."""

    def __init__(self, forecasts: ProgramForecasts) -> None:
        self._forecasts = forecasts

    async def forecast(self, request: web.Request) -> web.StreamResponse:
        program = request.match_info["id"]
        found = await self._forecasts.of(program)
        if found is None:
            return problem(404, "no such program")
        following = [
            NextForecastBody(**_figures(one), recovery_h=None if back is None else round(back, 1))
            for one, back in zip(found.by_hours, found.recovery_h, strict=True)
        ]
        period = found.period
        return json_answer(
            ForecastBody(
                program=program,
                homes=period.homes,
                events=period.events,
                next=following,
                period=PowerForecastBody(**_figures(period)),
            )
        )

    ROUTES = (
        RestRoute(
            operation=ops.SHOW_FORECAST, handler=forecast,
            summary="What a program's fleet will give in its next event and in a nomination period, with a band",
            answers={200: ForecastBody}, problems=(404, 503),
        ),
    )  # fmt: skip


def _figures(one: PowerForecast) -> dict[str, float]:
    return {
        "hours": round(one.hours, 2), "kw": round(one.kw, 2), "low_kw": round(one.low_kw, 2),
        "high_kw": round(one.high_kw, 2), "nomination_kw": round(one.nomination_kw, 2),
    }  # fmt: skip
