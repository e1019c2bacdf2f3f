"""Every product over Modbus: a value that it does not take is refused at the first answer, with the reason."""

import pytest

from gateway.domain.commands import CommandOp, CommandResult, WriteOutcome
from simulators.faces.plant import Trouble
from tests.conformance.rig import CODECS, STEERED, bench
from tests.conformance.test_control import REFUSED

OVER_MODBUS = [name for name in STEERED if CODECS[name].document.modbus is not None]
RANGE_CHECKED = ["huawei-luna2000", "sungrow-sh"]


@pytest.mark.parametrize("name", OVER_MODBUS)
async def test_write_that_is_refused_is_sent_once(name: str) -> None:
    async with bench(name) as rig:
        on_wire = rig.writes_on_wire()
        rig.face.trouble = Trouble.REFUSE
        assert await rig.power(1500) == REFUSED
        assert rig.writes_on_wire() == on_wire + 1
        assert rig.prior == {}


@pytest.mark.parametrize("name", RANGE_CHECKED)
@pytest.mark.parametrize("sign", [1, -1])
async def test_setpoint_beyond_the_device_s_own_limit_is_refused_and_nothing_is_left(name: str, sign: int) -> None:
    async with bench(name) as rig:
        assert await rig.power(sign * (rig.plant.discharge_w_max + 500)) == REFUSED
        assert not rig.controlled()
        assert rig.prior == {}
        assert await rig.power(1500) == rig.done


async def test_reserve_beyond_what_huawei_takes_is_refused_before_the_wire() -> None:
    async with bench("huawei-luna2000") as rig:
        on_wire = rig.writes_on_wire()
        assert await rig.tell(CommandOp.RESERVE, reserve_pct=30.0) == REFUSED
        assert rig.writes_on_wire() == on_wire
        assert await rig.tell(CommandOp.RESERVE, reserve_pct=12.0) == rig.done
        assert rig.plant.reserve_pct == 12.0


@pytest.mark.parametrize("name", OVER_MODBUS)
async def test_busy_device_has_refused_nothing(name: str) -> None:
    async with bench(name) as rig:
        assert await rig.power(1500) == rig.done
        rig.face.trouble = Trouble.BUSY
        assert await rig.power(-1200) == (WriteOutcome.UNKNOWN, CommandResult.NONE)
        rig.face.trouble = Trouble.NONE
        await rig.back()
        assert await rig.power(-1200) == rig.done
        await rig.expect_w(-1200)
