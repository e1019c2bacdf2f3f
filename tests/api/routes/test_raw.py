"""Raw messages through the routes: whose they are, what they say, and how they are discarded."""

from pathlib import Path

from gateway.domain.journal.changes import RawDiscarded
from gateway.domain.readings import RawMessage
from tests.api.test_app import Rig, rig

OLD, BINARY = "old/a/energy", "old/b c/energy"


async def keep(r: Rig, *messages: RawMessage) -> None:
    assert r.raw is not None
    r.raw.observe(messages)
    await r.raw.keep(r.raw.coming())


async def test_raw_messages_are_listed_with_whose_they_are_and_why(tmp_path: Path) -> None:
    async with rig(state_dir=tmp_path) as r:
        assert await r.ask("GET", "/v1/raw-messages") == {"total": 0, "next": None, "topics": []}
        await keep(r, *(RawMessage(topic=OLD, payload=b"1") for _ in range(3)), RawMessage(topic=BINARY, payload=b"2"))
        body = await r.ask("GET", "/v1/raw-messages?limit=1")
        assert (body["total"], body["next"]) == (2, 1)
        told = body["topics"][0]
        assert (told["topic"], told["device"], told["messages"], told["unreadable"]) == (OLD, None, 3, 0)
        assert (told["reason"], told["discarded"]) == ("no installed profile has this topic", 0)
        assert told["since"] == told["newest"] is not None
        assert (await r.ask("GET", "/v1/raw-messages?offset=1"))["topics"][0]["topic"] == BINARY


async def test_raw_messages_of_a_topic_are_shown_as_they_came(tmp_path: Path) -> None:
    async with rig(state_dir=tmp_path) as r:
        await keep(
            r, RawMessage(topic=OLD, payload=b'{"id":1}', problem="schema"), RawMessage(topic=OLD, payload=b"\xff")
        )
        body = await r.ask("GET", "/v1/raw-messages/old%2Fa%2Fenergy")
        assert [(one["text"], one["base64"], one["problem"]) for one in body["messages"]] == [
            (None, "/w==", ""), ('{"id":1}', None, "schema"),
        ]  # fmt: skip
        await r.ask("GET", "/v1/raw-messages/nobody", status=404)


async def test_raw_messages_are_discarded_only_with_a_reason_that_the_journal_keeps(tmp_path: Path) -> None:
    async with rig(state_dir=tmp_path) as r:
        await keep(r, RawMessage(topic=BINARY, payload=b"1"), RawMessage(topic=OLD, payload=b"1"))
        path = "/v1/raw-messages/old%2Fb%20c%2Fenergy"
        refused = await r.ask("DELETE", path, status=400)
        assert refused["problems"] == ["reason: why are these messages given up?"]
        assert await r.ask("DELETE", f"{path}?reason=bench&by=fay") == {"discarded": 1}
        await r.ask("DELETE", f"{path}?reason=bench", status=404)
        found = [change for change in r.world.journal.kept if isinstance(change, RawDiscarded)]
        assert [(change.names, change.messages, change.by, change.reason) for change in found] == [
            ((BINARY,), 1, "fay", "bench")
        ]
