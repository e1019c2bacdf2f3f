"""The reserve is what the battery keeps while the grid is up; what the backup may use is the owner's alone."""

from gateway.domain.commands import CommandOp
from tests.conformance.rig import bench


async def test_foxess_reserve_is_the_minimum_on_grid_and_leaves_the_backup_its_own() -> None:
    async with bench("foxess-h3", reserve_pct=25.0) as rig:
        assert (await rig.fresh())["reserve_pct"] == 25.0
        assert await rig.tell(CommandOp.RESERVE, reserve_pct=40.0) == rig.done
        settings = rig.face.settings()
        assert (settings["min_soc_on_grid"], settings["min_soc"]) == (40.0, 25.0)
        rig.batteries.islanded[:] = True
        await rig.go(3)
        assert rig.plant.reserve_pct == 25.0
