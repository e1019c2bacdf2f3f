"""HTTP links against a battery on loopback that answers as the test says."""

import asyncio
import hashlib
import ssl
import subprocess
from typing import Any

import pytest
from aiohttp import web

from gateway.clock import ManualClock
from gateway.domain.errors import InvalidInput, LinkDown, PeerBusy, PeerRefused, ProtocolViolation
from gateway.profiles.compiled.points import Marker, Raw, Unwritable
from tests.scenes.http_rig import STATUS, battery, http_links, opened, request, target
from tests.scenes.waiting import turns, until

LOGIN = (
    "{concurrency: 8, auth: {kind: login, path: /login, token: /token, "
    "fields: {username: $username, password: $secret, force: false}}}"
)


async def test_read_points_of_one_document_cost_one_request() -> None:
    async with battery() as peer, http_links() as links:
        peer.answers["/info"] = {"serial": {"not": "a scalar"}}
        peer.answers["/config"] = {"EM_ToU_Schedule": '[{"start": "23:00"}]', "EM_USOC": "20"}
        link = await opened(links, target(peer.url))
        raws = await link.read(
            ["power", "soc", "nested", "second", "tilde", "serial", "schedule", "mode", "reserve", "limit"]
        )
        assert raws == {
            "power": -1500.5,
            "soc": 61,
            "nested": Marker.NULL,
            "second": 2,
            "tilde": "x",
            "serial": Marker.GARBLED,
            "schedule": "23:00",
            "mode": Marker.MISSING,
            "reserve": "20",
            "limit": Marker.MISSING,
        }
        assert peer.paths == ["/status", "/info", "/config"]
        assert links.stats.requests == 3
        assert links.stats.no_scalar == 1


async def test_read_document_that_is_not_there_is_missing() -> None:
    async with battery() as peer, http_links() as links:
        link = await opened(links, target(peer.url))
        assert await link.read(["power", "serial"]) == {"power": -1500.5, "serial": Marker.MISSING}
        assert links.stats.failures["not_found"] == 1


async def test_read_by_post_sends_its_body_once_for_all_points_that_ask_the_same() -> None:
    async with battery() as peer, http_links() as links:

        async def reply(got: web.Request) -> web.Response:
            asked = await got.json()
            found = {"ES.GetStatus": {"bat_power": -800, "bat_soc": 55}, "EM.GetStatus": {"total_power": 120}}
            return web.json_response({"result": found[asked["method"]]})

        peer.answers["/rpc"] = reply
        link = await opened(links, target(peer.url))
        assert await link.read(["asked", "asked_soc", "asked_else"]) == {
            "asked": -800, "asked_soc": 55, "asked_else": 120,
        }  # fmt: skip
        assert [(seen.method, seen.body) for seen in peer.seen] == [
            ("POST", {"method": "ES.GetStatus", "params": {"id": 0}}),
            ("POST", {"method": "EM.GetStatus"}),
        ]
        peer.answers["/rpc"] = lambda _: web.Response(text="no JSON")
        with pytest.raises(ProtocolViolation, match="no JSON"):
            await link.read(["asked"])
        del peer.answers["/rpc"]
        assert await link.read(["asked"]) == {"asked": Marker.MISSING}


async def test_read_chooses_the_element_of_a_list_by_what_it_says() -> None:
    names = ["chosen", "chosen_by_number", "chosen_twice", "chosen_none"]
    async with battery() as peer, http_links() as links:
        first = {"sn": "A1", "no": 3, "kind": "lfp", "soc": 40}
        for packs in (
            [first, {"sn": "B2", "kind": "lfp", "soc": 70}],
            [{"sn": "B2", "kind": "lfp", "soc": 70}, 5, first],
        ):
            peer.answers["/packs"] = {"packs": packs}
            link = await opened(links, target(peer.url))
            assert await link.read(names) == {
                "chosen": 70, "chosen_by_number": 40, "chosen_twice": Marker.GARBLED, "chosen_none": Marker.MISSING,
            }  # fmt: skip
        peer.answers["/packs"] = {"packs": {"[sn=B2]": {"soc": 1}}}
        assert (await link.read(["chosen"])) == {"chosen": 1}, "of an object it is a key like any other"


async def test_write_members_go_in_one_body_with_constants() -> None:
    async with battery() as peer, http_links() as links:
        peer.answers["/config"] = lambda _: web.Response(status=204)
        link = await opened(links, target(peer.url))
        await link.write(request(mode="1", reserve=20))
        assert peer.seen[0].method == "PUT"
        assert peer.seen[0].body == {"EM_OperatingMode": "1", "EM_USOC": "20", "by": "gateway", "hard": True}


@pytest.mark.parametrize(("raw", "body"), [(1500.0, 1500), (0.5, 0.5), (-3, -3), (True, True), (Marker.NULL, None)])
async def test_write_member_keeps_its_kind(raw: Raw, body: object) -> None:
    async with battery() as peer, http_links() as links:
        peer.answers["/limit"] = True
        link = await opened(links, target(peer.url))
        await link.write(request(limit=raw))
        assert peer.seen[0].body == {"limit": body}
        assert type(peer.seen[0].body["limit"]) is type(body)


@pytest.mark.parametrize(("raw", "segment"), [(2500.0, "2500"), (0, "0"), ("a/b", "a%2Fb")])
async def test_write_without_key_is_the_last_segment_and_has_no_body(raw: Raw, segment: str) -> None:
    async with battery() as peer, http_links() as links:
        asked: list[str] = []

        def take(got: web.Request) -> Any:
            asked.append(got.raw_path)
            return web.Response(text="whatever", content_type="text/html")

        for path in (f"/setpoint/charge/{segment}", "/setpoint/charge/a/b"):
            peer.answers[path] = take
        link = await opened(links, target(peer.url))
        await link.write(request(charge=raw))
        assert asked == [f"/setpoint/charge/{segment}"]
        assert peer.seen[0].body is None


@pytest.mark.fault("F6")
async def test_write_answered_by_a_web_page_is_no_answer() -> None:
    """A portal or a proxy in between answers 200 to everything."""
    async with battery() as peer, http_links() as links:
        page = "  <!doctype html><html>log in</html>"
        peer.answers["/setpoint/charge/100"] = lambda _: web.Response(text=page, content_type="text/html")
        link = await opened(links, target(peer.url))
        with pytest.raises(ProtocolViolation, match="page"):
            await link.write(request(charge=100))


async def test_write_value_that_is_no_segment_is_not_sent() -> None:
    async with battery() as peer, http_links() as links:
        link = await opened(links, target(peer.url))
        for raw in (Marker.NULL, "", ".."):
            with pytest.raises(Unwritable):
                await link.write(request(charge=raw))
        assert peer.seen == []


@pytest.mark.parametrize(
    ("kind", "username", "secret", "sent"),
    [
        ("{kind: header, name: Auth-Token}", "", "abc", ("Auth-Token", "abc")),
        ("{kind: basic}", "x", "owner", ("Authorization", "Basic eDpvd25lcg==")),
    ],
)
async def test_auth_fixed_is_sent_with_every_request(
    kind: str, username: str, secret: str, sent: tuple[str, str]
) -> None:
    async with battery() as peer, http_links() as links:
        link = await opened(links, target(peer.url, f"{{auth: {kind}}}", username=username, secret=secret))
        await link.read(["power"])
        assert peer.seen[0].headers[sent[0]] == sent[1]


async def test_auth_wrong_token_is_refused_by_status_or_by_an_empty_object() -> None:
    """F6: 401, 403, and the firmware that answers 200 with an empty object."""
    section = "{auth: {kind: header, name: Auth-Token, unauthorized_without: /USOC}}"
    async with battery() as peer, http_links() as links:
        link = await opened(links, target(peer.url, section, secret="old"))
        answers: list[Any] = [(401, {}), (403, {}), {}, {"Pac_total_W": 1}]
        for answer in answers:
            peer.answers["/status"] = answer
            with pytest.raises(PeerRefused, match="not authorised"):
                await link.read(["power"])
        # A document in which no profile looks for it proves nothing.
        peer.answers["/info"] = {"serial": "s"}
        assert await link.read(["serial"]) == {"serial": "s"}
        peer.answers["/info"] = {}
        with pytest.raises(PeerRefused):
            await link.read(["serial"])
        assert links.stats.failures["unauthorised"] == 5


class Office:
    """A login that hands out numbered tokens and takes only the newest."""

    def __init__(self) -> None:
        self.given = 0
        self.waiting = 0
        self.go = asyncio.Event()
        self.refuse: tuple[int, dict[str, str]] | None = None

    async def login(self, _: web.Request) -> web.StreamResponse:
        await self.go.wait()
        if self.refuse is not None:
            return web.Response(status=self.refuse[0], headers=self.refuse[1])
        self.given += 1
        answer = web.json_response({"token": f"t{self.given}"})
        answer.set_cookie("AuthCookie", f"c{self.given}")
        return answer

    async def status(self, got: web.Request) -> web.StreamResponse:
        if got.headers.get("Authorization") != f"Bearer t{self.given}" or got.cookies["AuthCookie"] != f"c{self.given}":
            self.waiting += 1
            return web.Response(status=401)
        return web.json_response(STATUS)


async def test_login_expired_for_many_requests_happens_once() -> None:
    """F6: a token that ran out is renewed once, however many requests found it so."""
    office = Office()
    async with battery() as peer, http_links() as links:
        peer.answers |= {"/login": office.login, "/status": office.status}
        office.go.set()
        link = await opened(links, target(peer.url, LOGIN, username="customer", secret="pw"))
        assert peer.seen[0].body == {"username": "customer", "password": "pw", "force": False}
        assert await link.read(["soc"]) == {"soc": 61}
        office.given += 1
        office.go.clear()
        async with asyncio.TaskGroup() as group:
            reads = [group.create_task(link.read(["soc"])) for _ in range(8)]
            await until(lambda: office.waiting == 8)
            office.go.set()
        assert [read.result() for read in reads] == [{"soc": 61}] * 8
        assert links.stats.logins == 2


async def test_login_that_does_not_help_is_refused_and_not_repeated() -> None:
    """F6: one more login, then the refusal is believed."""
    office = Office()
    office.go.set()
    clock = ManualClock()
    async with battery() as peer, http_links(clock) as links:
        peer.answers |= {"/login": office.login, "/status": (403, {})}
        link = await opened(links, target(peer.url, LOGIN, username="customer", secret="pw"))
        with pytest.raises(PeerRefused):
            await link.read(["soc"])
        assert peer.paths == ["/login", "/status", "/login", "/status"]
        office.refuse = (401, {})
        for _ in range(3):
            with pytest.raises(PeerRefused):
                await link.read(["soc"])
        assert links.stats.logins == 3
        clock.advance(s=61)
        office.refuse = None
        peer.answers["/status"] = office.status
        assert await link.read(["soc"]) == {"soc": 61}


async def test_login_too_many_is_respected() -> None:
    """F6: 429 on the login keeps everybody away."""
    office = Office()
    office.go.set()
    office.refuse = (429, {})
    clock = ManualClock()
    section = LOGIN.replace("{concurrency: 8", "{cool_down_s: 300, concurrency: 8")
    async with battery() as peer, http_links(clock) as links:
        peer.answers |= {"/login": office.login, "/status": office.status}
        link = links.link(target(peer.url, section, username="customer", secret="pw"))
        for _ in range(2):
            with pytest.raises(PeerBusy) as caught:
                await link.open()
            assert caught.value.after_s == 300
        assert peer.paths == ["/login"]
        clock.advance(s=301)
        office.refuse = None
        await link.open()
        assert await link.read(["soc"]) == {"soc": 61}


async def test_digest_challenge_is_answered_and_reused() -> None:
    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    def digest(got: web.Request) -> Any:
        kind, _, rest = got.headers.get("Authorization", "").partition(" ")
        if kind != "Digest":
            return web.Response(
                status=401, headers={"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth", algorithm=MD5'}
            )
        given = {k: v.strip('"') for k, v in (pair.strip().split("=", 1) for pair in rest.split(","))}
        whole = f"{md5('customer:r:pw')}:n:{given['nc']}:{given['cnonce']}:auth:{md5(f'GET:{got.path}')}"
        assert given["response"] == md5(whole)
        return STATUS

    async with battery() as peer, http_links() as links:
        peer.answers["/status"] = digest
        link = await opened(links, target(peer.url, "{auth: {kind: digest}}", username="customer", secret="pw"))
        assert await link.read(["soc"]) == {"soc": 61}
        assert await link.read(["soc"]) == {"soc": 61}
        assert len(peer.seen) == 3


async def test_digest_wrong_secret_is_refused() -> None:
    """F6: a second challenge is the answer."""
    async with battery() as peer, http_links() as links:
        peer.answers["/status"] = (401, {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'})
        link = await opened(links, target(peer.url, "{auth: {kind: digest}}", username="customer", secret="no"))
        with pytest.raises(PeerRefused):
            await link.read(["soc"])
        assert len(peer.seen) == 2


@pytest.mark.parametrize(
    ("status", "headers", "after_s"),
    [
        (429, {"Retry-After": "120"}, 120),
        (503, {"Retry-After": "7"}, 7),
        (429, {}, 30),
        (429, {"Retry-After": "soon"}, 30),
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:40 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 40),
        (429, {"Retry-After": "99999999999"}, 3600),
    ],
)
async def test_busy_host_is_left_alone_as_long_as_it_says(status: int, headers: dict[str, str], after_s: float) -> None:
    """F6: Retry-After in seconds or as a date, for reads and writes alike."""
    clock = ManualClock()
    async with battery() as peer, http_links(clock) as links:
        peer.answers["/status"] = (status, headers)
        link = await opened(links, target(peer.url))
        with pytest.raises(PeerBusy) as caught:
            await link.read(["soc"])
        assert caught.value.after_s == after_s
        clock.advance(s=after_s - 1)
        with pytest.raises(PeerBusy) as caught:
            await link.write(request(limit=1))
        assert caught.value.after_s == pytest.approx(1)
        assert len(peer.seen) == 1
        clock.advance(s=1)
        peer.answers["/status"] = STATUS
        assert await link.read(["soc"]) == {"soc": 61}


async def test_breaker_opens_after_failures_in_a_row_and_tries_once() -> None:
    """F6: 5xx, then quiet for `breaker_s`, one trial, and a success that forgets it all."""
    clock = ManualClock()
    async with battery() as peer, http_links(clock) as links:
        peer.answers["/status"] = (500, {})
        to = target(peer.url, "{breaker: 3, breaker_s: 20, concurrency: 4}")
        link = await opened(links, to)
        for _ in range(3):
            with pytest.raises(LinkDown, match="500"):
                await link.read(["soc"])
        await link.close()
        link = await opened(links, to)
        with pytest.raises(LinkDown, match="left alone"):
            await link.read(["soc"])
        assert len(peer.seen) == 3
        clock.advance(s=21)
        go = asyncio.Event()

        async def slow(_: web.Request) -> object:
            await go.wait()
            return (500, {})

        peer.answers["/status"] = slow
        async with asyncio.TaskGroup() as group:

            async def trial() -> None:
                with pytest.raises(LinkDown, match="500"):
                    await link.read(["soc"])

            group.create_task(trial())
            await until(lambda: len(peer.seen) == 4)
            with pytest.raises(LinkDown, match="left alone"):
                await link.read(["soc"])
            go.set()
        assert links.stats.breaker_opened == 2
        clock.advance(s=21)
        peer.answers["/status"] = STATUS
        assert await link.read(["soc"]) == {"soc": 61}
        assert await link.read(["soc"]) == {"soc": 61}


async def test_breaker_trial_given_up_leaves_room_for_the_next() -> None:
    clock = ManualClock()
    async with battery() as peer, http_links(clock) as links:
        peer.answers["/status"] = (500, {})
        link = await opened(links, target(peer.url, "{breaker: 1, breaker_s: 20}"))
        with pytest.raises(LinkDown):
            await link.read(["soc"])
        clock.advance(s=21)

        async def mute(_: web.Request) -> None:
            await asyncio.Event().wait()

        peer.answers["/status"] = mute
        async with asyncio.TaskGroup() as group:
            trial = group.create_task(link.read(["soc"]))
            await until(lambda: len(peer.seen) == 2)
            trial.cancel()
        peer.answers["/status"] = STATUS
        assert await link.read(["soc"]) == {"soc": 61}


async def test_body_that_is_no_json_is_a_violation() -> None:
    """F6: an HTML page with status 200 is counted and not taken for a reading."""
    async with battery() as peer, http_links() as links:
        link = await opened(links, target(peer.url, "{body_bytes_max: 1024}"))
        for text in ("<html>log in</html>", "", '{"USOC": 61'):
            peer.answers["/status"] = lambda _, text=text: web.Response(text=text, content_type="text/html")
            with pytest.raises(ProtocolViolation):
                await link.read(["soc"])
        assert links.stats.malformed == 3
        peer.answers["/status"] = {"USOC": "x" * 2000}
        with pytest.raises(ProtocolViolation, match="1024 bytes"):
            await link.read(["soc"])
        assert links.stats.failures["oversized"] == 1


async def test_redirect_to_the_same_host_is_followed() -> None:
    async with battery() as peer, http_links() as links:
        peer.answers |= {"/status": (302, {"Location": "/new"}), "/new": (307, {"Location": f"{peer.url}/newer"})}
        peer.answers["/newer"] = STATUS
        link = await opened(links, target(peer.url))
        assert await link.read(["soc"]) == {"soc": 61}


async def test_redirect_loop_or_elsewhere_is_refused() -> None:
    """F6: at most three hops, and none to another host, port or scheme, where our secret would go with it."""
    section = "{auth: {kind: header, name: Auth-Token}}"
    async with battery() as peer, battery() as other, http_links() as links:
        link = await opened(links, target(peer.url, section, secret="s"))
        peer.answers["/status"] = (302, {"Location": "/status"})
        with pytest.raises(PeerRefused):
            await link.read(["soc"])
        assert len(peer.seen) == 4
        for place in (f"{other.url}/status", peer.url.replace("http", "https") + "/status", "javascript:x", ""):
            peer.answers["/status"] = (302, {"Location": place})
            with pytest.raises(PeerRefused):
                await link.read(["soc"])
        assert other.seen == []
        assert links.stats.redirects_refused == 5


async def test_redirect_of_a_write_is_repeated_only_where_the_method_stays() -> None:
    """F6: a POST that a redirect would turn into a GET has written nothing."""
    async with battery() as peer, http_links() as links:
        link = await opened(links, target(peer.url))
        peer.answers |= {"/limit": (302, {"Location": "/there"}), "/there": True}
        with pytest.raises(PeerRefused):
            await link.write(request(limit=1))
        peer.answers["/limit"] = (308, {"Location": "/there"})
        await link.write(request(limit=1))
        assert (peer.seen[-1].method, peer.seen[-1].path, peer.seen[-1].body) == ("POST", "/there", {"limit": 1})


@pytest.mark.parametrize(
    ("status", "error"), [(400, PeerRefused), (404, PeerRefused), (422, PeerRefused), (500, LinkDown), (503, LinkDown)]
)
async def test_write_refused_and_failed_are_told_apart(status: int, error: type[Exception]) -> None:
    async with battery() as peer, http_links() as links:
        peer.answers["/limit"] = (status, {})
        link = await opened(links, target(peer.url))
        with pytest.raises(error):
            await link.write(request(limit=1))


async def test_peer_that_never_answers_is_a_lost_link() -> None:
    """F3: a frozen peer costs one time-out per request, and its turn at the host is free again."""
    async with battery() as peer, http_links() as links:

        async def mute(_: web.Request) -> None:
            await asyncio.Event().wait()

        peer.answers["/status"] = mute
        link = await opened(links, target(peer.url, "{timeout_s: 0.2}"))
        with pytest.raises(LinkDown, match="in time"):
            await link.read(["soc"])
        peer.answers["/status"] = STATUS
        assert await link.read(["soc"]) == {"soc": 61}
        assert links.stats.failures["timeout"] == 1


async def test_peer_that_is_not_there_is_a_lost_link() -> None:
    """F3: nothing listens."""
    async with battery() as peer:
        url = peer.url
    async with http_links() as links:
        link = await opened(links, target(url))
        with pytest.raises(LinkDown):
            await link.read(["soc"])
        assert links.stats.failures["unreachable"] == 1


async def test_peer_that_speaks_something_else_is_a_violation() -> None:
    """F6: garbage instead of HTTP."""

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"\x00\x01garbage\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    async with server, http_links() as links:
        link = await opened(links, target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        with pytest.raises(ProtocolViolation):
            await link.read(["soc"])


async def test_turns_writes_overtake_reads_that_wait() -> None:
    async with battery() as peer, http_links() as links:
        go = asyncio.Event()

        async def slow(_: web.Request) -> object:
            await go.wait()
            return STATUS

        peer.answers |= {"/status": slow, "/limit": True}
        link = await opened(links, target(peer.url))
        other = await opened(links, target(peer.url, device="d2"))
        async with asyncio.TaskGroup() as group:
            for reader in (link, other, link):
                group.create_task(reader.read(["soc"]))
            await until(lambda: len(peer.seen) == 1)
            group.create_task(other.write(request(limit=1)))
            await until(lambda: peer.paths == ["/status"])
            go.set()
        assert peer.paths == ["/status", "/limit", "/status", "/status"]


async def test_turns_are_as_far_apart_as_the_profile_says() -> None:
    clock = ManualClock()
    async with battery() as peer, http_links(clock) as links:
        link = await opened(links, target(peer.url, "{spacing_s: 0.02, concurrency: 2}"))
        await link.read(["soc"])
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(link.read(["soc"]))
            await turns()
            assert len(peer.seen) == 1
            clock.advance(s=0.02)
            await waiting
        assert len(peer.seen) == 2


async def test_quota_is_shared_by_an_account_and_serves_writes_first() -> None:
    clock = ManualClock()
    section = "{account_per_min: 10, timeout_s: 0.2, concurrency: 4}"
    async with battery() as peer, http_links(clock) as links:
        peer.answers["/limit"] = True
        one = await opened(links, target(peer.url, section, device="d1", username="fleet"))
        two = await opened(links, target(peer.url, section, device="d2", username="fleet"))
        someone = await opened(links, target(peer.url, section, device="d3", username="someone"))
        await one.read(["soc"])
        with pytest.raises(PeerBusy, match="quota") as caught:
            await two.read(["soc"])
        assert caught.value.after_s == pytest.approx(60 / 9)
        await someone.read(["soc"])
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_tried(two.read(["soc"])))
            writing = group.create_task(one.write(request(limit=1)))
            await until(reading.done)
            clock.advance(s=7)
            second = group.create_task(_tried(two.read(["soc"])))
            await writing
        assert isinstance(reading.result(), PeerBusy)
        assert isinstance(second.result(), PeerBusy)
        assert peer.paths == ["/status", "/status", "/limit"]


async def _tried(reading: Any) -> object:
    try:
        return await reading
    except PeerBusy as error:
        return error


@pytest.mark.parametrize(
    ("url", "section", "more"),
    [
        ("modbus://127.0.0.1", "{}", {}),
        ("http://127.0.0.1/path", "{}", {}),
        ("http://192.0.2.1", "{tls: unverified}", {}),
        ("https://192.0.2.1", "{tls: unverified}", {"fingerprint": "abcd"}),
        ("http://192.0.2.1", "{auth: {kind: header, name: T}}", {"secret": "a\r\nb"}),
    ],
)
async def test_link_connection_that_cannot_be_is_invalid(url: str, section: str, more: dict[str, str]) -> None:
    async with http_links() as links:
        with pytest.raises(InvalidInput):
            links.link(target(url, section, **more))


async def test_links_closed_send_those_away_who_wait() -> None:
    async with battery() as peer, http_links() as links:

        async def mute(_: web.Request) -> None:
            await asyncio.Event().wait()

        peer.answers["/status"] = mute
        link = await opened(links, target(peer.url))

        async def sent_away() -> None:
            with pytest.raises(LinkDown):
                await link.read(["soc"])

        async with asyncio.TaskGroup() as group:
            group.create_task(sent_away())
            await until(lambda: len(peer.seen) == 1)
            group.create_task(sent_away())
            await asyncio.sleep(0)
            await links.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    """A battery's self-signed certificate: the server's context and the fingerprint an installer would note."""
    directory = tmp_path_factory.mktemp("tls")
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=battery", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, hashlib.sha256(ssl.PEM_cert_to_DER_cert(cert.read_text())).hexdigest()


@pytest.mark.parametrize(("tls", "pin"), [("unverified", ""), ("unverified", "right"), ("verify", "right")])
async def test_tls_self_signed_is_taken_where_the_profile_or_a_pin_says_so(
    tls: str, pin: str, certificate: tuple[ssl.SSLContext, str]
) -> None:
    parameters = {"fingerprint": certificate[1]} if pin else {}
    async with battery(ssl=certificate[0]) as peer, http_links() as links:
        link = await opened(links, target(peer.url, f"{{tls: {tls}}}", **parameters))
        assert await link.read(["soc"]) == {"soc": 61}


@pytest.mark.parametrize(("tls", "pin"), [("verify", ""), ("unverified", "ab" * 32), ("none", "")])
async def test_tls_wrong_certificate_is_refused_before_a_secret_is_sent(
    tls: str, pin: str, certificate: tuple[ssl.SSLContext, str]
) -> None:
    parameters = {"fingerprint": pin} if pin else {}
    async with battery(ssl=certificate[0]) as peer, http_links() as links:
        link = await opened(links, target(peer.url, f"{{tls: {tls}}}", **parameters))
        with pytest.raises(PeerRefused, match="certificate"):
            await link.read(["soc"])
        assert peer.seen == []
        assert links.stats.failures["certificate"] == 1
