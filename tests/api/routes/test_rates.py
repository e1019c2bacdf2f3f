"""The rate that an enrollment is paid by, over REST."""

from pathlib import Path

from gateway.programs.loader import load_programs
from tests.api.routes.test_enrollments import imported
from tests.api.test_app import rig
from tests.services.programs.stores import BASE

PROGRAMS = load_programs(Path(__file__).parents[3] / "config" / "programs")
RI = BASE | {
    "program": "connectedsolutions-ri", "delivery_period": "RI", "since": "2024-05-31T16:00:00Z",
    "delivery_period_start_date_time": "2024-05-31T16:00:00Z",
    "delivery_period_end_date_time": "2090-01-01T00:00:00Z",
}  # fmt: skip


async def test_rate_says_amount_rules_and_evidence() -> None:
    async with rig(programs=PROGRAMS) as r:
        await imported(
            r, "enrollments", RI | {"device": "home-00"}, RI | {"device": "home-01", "program": "unheard-of"}
        )
        found = await r.ask("GET", "/v1/enrollments/home-00/rates?on=2026-07-15")
        assert found == {
            "id": "home-00",
            "rates": [
                {
                    "subject": "home-00", "kind": "device", "program": "connectedsolutions-ri", "delivery_period": "RI",
                    "on": "2026-07-15", "version": "2024", "season": "summer", "enrolled": "2024-05-31", "year": 3,
                    "unit": "kw_season", "rate": "until-may-2024", "amount": "400", "currency": "USD", "factors": [],
                    "evidence": "verified", "source": "maker", "certain": True, "reason": None,
                }
            ],
        }  # fmt: skip
        (today,) = (await r.ask("GET", "/v1/enrollments/home-00/rates"))["rates"]
        assert (today["on"], today["amount"]) == ("2027-01-15", None)
        assert today["reason"] == "no rate per kw_season for an event on 2027-01-15"
        # of a program whose rules are not known here nothing is said
        assert (await r.ask("GET", "/v1/enrollments/home-01/rates"))["rates"] == []
        await r.ask("GET", "/v1/enrollments/nobody/rates", status=404)
        for wrong in ("2026-13-01", "2026-02-30", "today", "20260715"):
            await r.ask("GET", f"/v1/enrollments/home-00/rates?on={wrong}", status=400)


async def test_rate_of_a_home_behind_a_meter_is_that_of_the_meter() -> None:
    async with rig(programs=PROGRAMS) as r:
        await imported(r, "enrollments", RI | {"device": "home-00", "meter_id": "m-1"})
        rates = (await r.ask("GET", "/v1/enrollments/m-1/rates?on=2026-07-15"))["rates"]
        of_home = (await r.ask("GET", "/v1/enrollments/home-00/rates?on=2026-07-15"))["rates"]
        assert [one["amount"] for one in rates + of_home] == ["400"] * len(rates + of_home)
        assert of_home
