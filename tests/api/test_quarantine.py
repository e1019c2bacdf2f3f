"""Whatever is not trusted stands in one list: why, since when, and what lifts it."""

from typing import Any

from gateway.services.control.quarantine import Distrust, Untrusted
from tests.api.test_app import rig
from tests.scenes.world import World

STRANGER = Untrusted(
    name="fox", reason=Distrust.WRONG_IDENTITY, since_ms=1_767_225_600_000, lifted_by="an import", detail="model is 9"
)


def by_name(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    assert set(body["entries"][0]) == {"name", "reason", "since", "lifted_by", "detail"}
    return {entry["name"]: entry for entry in body["entries"]}


async def wrong_sign(world: World) -> str:
    """The time at which a home is found to do the opposite."""
    world.homes.inverted.add(2)
    await world.go(2)
    await world.submit(s=1_200, target_w=16_000)
    at: list[int] = []

    def each() -> None:
        if world.control.quarantine.quarantined and not at:
            at.append(world.clock.utc)

    await world.go(130, each=each)
    (entry,) = [entry for entry in world.control.quarantine.untrusted() if entry.name == "home-02"]
    assert entry.since_ms == at[0]
    return "home-02"


async def test_wrong_sign_frozen_product_and_wrong_identity_stand_in_one_list() -> None:
    async with rig(devices=12, misidentified=lambda: [STRANGER]) as r:
        device = await wrong_sign(r.world)
        r.world.homes.faults[4:] = 1
        await r.world.go(30)
        found = by_name(await r.ask("GET", "/v1/quarantine"))
        assert {name: entry["reason"] for name, entry in found.items()} == {
            device: "wrong_sign", "product:p": "many_failed", "fox": "wrong_identity",
        }  # fmt: skip
        assert all(entry["since"] for entry in found.values())
        assert found[device]["lifted_by"].endswith(f"gateway devices trust {device}")
        assert found["product:p"]["lifted_by"].endswith("gateway devices trust product:p")
        assert (found["fox"]["since"], found["fox"]["detail"]) == ("2026-01-01T00:00:00Z", "model is 9")


async def test_operator_lifts_wrong_sign_and_freeze_and_is_told_what_lifts_a_wrong_identity() -> None:
    async with rig(devices=12, misidentified=lambda: [STRANGER]) as r:
        device = await wrong_sign(r.world)
        r.world.homes.faults[4:] = 1
        await r.world.go(30)
        refused = await r.ask("DELETE", "/v1/quarantine/fox", status=409)
        assert refused["error"] == "wrong_identity is not lifted by an operator, but by an import"
        assert refused["problems"] == ["model is 9"]
        assert set(by_name(await r.ask("DELETE", f"/v1/quarantine/{device}"))) == {"product:p", "fox"}
        assert set(by_name(await r.ask("DELETE", "/v1/quarantine/product:p"))) == {"fox"}
        await r.ask("DELETE", "/v1/quarantine/product:p", status=404)
