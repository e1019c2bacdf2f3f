"""Identified messages and SIGKILL, with the real daemon: what was refused and told so stays refused."""

from pathlib import Path

import aiomqtt
import orjson
import pytest

from gateway.signals.platform import ANSWER_TOPIC, DISPATCH_TOPIC
from tests.e2e.rig import Daemon, event, eventually, now_ms, running
from tests.e2e.tap import Tap
from tests.scenes.brokers import standin_process

pytestmark = pytest.mark.e2e


async def test_refusal_that_was_told_before_a_kill_is_told_again_when_the_broker_repeats_the_message(
    tmp_path: Path,
) -> None:
    async with standin_process(tmp_path) as broker, Tap(broker.port, wanted=DISPATCH_TOPIC) as tap:
        daemon = Daemon(tmp_path, broker.port)
        link = {"url": f"mqtt://127.0.0.1:{tap.port}", "client_id": "platform", "reconnect_base_s": 0.1}
        daemon.change = {"platform": {"broker": link}}
        daemon.write_config()
        start = now_ms() + 3_600_000
        wanted = orjson.dumps(event("e", start_ms=start, end_ms=start + 600_000, target_w=1_000.0))
        told: list[dict[str, str]] = []
        async with aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as platform:
            await platform.subscribe(ANSWER_TOPIC, qos=1)

            async def answers(count: int) -> list[str]:
                while len(told) < count:
                    message = await anext(platform.messages)
                    told.append(orjson.loads(bytes(message.payload)))
                return [one["outcome"] for one in told]

            async with running(daemon):
                await daemon.ready()
                assert (await daemon.post("/v1/dispatch/stop-all", {"active": True})).status == 200
                # the gateway tells its refusal, and never hears that the broker has it
                tap.deaf = True
                await platform.publish(DISPATCH_TOPIC, wanted, qos=1)
                assert await answers(1) == ["rejected"]
                assert (await daemon.post("/v1/dispatch/stop-all", {"active": False})).status == 200
                assert tap.acknowledged == []
            tap.deaf = False
            # killed
            await daemon.child.kill()
            again = Daemon(tmp_path, broker.port, daemon.change, http_port=daemon.http_port)
            async with running(again):
                await eventually(lambda: tap.acknowledged == [wanted], "the message is acknowledged", alive=again.child)
                assert (await answers(2))[-1] == "rejected"
                assert (await again.ask("GET", "/v1/dispatch-events/e")).status == 404
                # the platform's own repetition asks anew
                await platform.publish(DISPATCH_TOPIC, wanted, qos=1)
                assert (await answers(3))[-1] == "accepted"
                assert (await again.ask("GET", "/v1/dispatch-events/e")).body["state"] == "scheduled"
            assert again.faults_logged() == []
