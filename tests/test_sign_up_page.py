"""The example of a sign-up page: strict about what it loads, and in step with what the gateway answers."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from gateway.api.sign_up_models import CustomerSignUp
from gateway.domain.programs.sign_ups import AUTHORIZATION, SESSION, SignUpState
from gateway.signals.leap_account.connect import LeapConnectSettings

PAGE = Path(__file__).parents[1] / "docs" / "sign-up"


class Elements(HTMLParser):
    """Every element with its attributes, and the text of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._within = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within and data.strip():
            self.inline.append(data)


def read() -> Elements:
    page = Elements()
    page.feed((PAGE / "index.html").read_text(encoding="utf-8"))
    return page


def test_page_lets_nothing_in_but_its_own_files() -> None:
    (policy,) = [
        attributes["content"] for _, attributes in read().found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'", "style-src": "'self'", "script-src": "'self'", "connect-src": "'self'",
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip


def test_page_has_no_script_style_or_address_of_its_own_that_the_policy_would_stop() -> None:
    page = read()
    assert page.inline == []
    for tag, attributes in page.found:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or (PAGE / value).is_file(), (tag, value)
    assert {tag for tag, _ in page.found}.isdisjoint({"iframe", "object", "embed", "form", "base"})


def test_script_follows_a_link_to_the_aggregators_page_alone_and_knows_every_state() -> None:
    script = (PAGE / "sign-up.js").read_text(encoding="utf-8")
    url = LeapConnectSettings(account="a").url
    assert f'const PAGE = "{url}";' in script
    assert re.findall(r"https?://[^\"'`\s]+", script.replace(url, "")) == []
    assert "innerHTML" not in script
    for known, name in ((SESSION, "SESSION"), (AUTHORIZATION, "AUTHORIZATION")):
        (block,) = re.findall(rf"const {name} = \{{(.*?)\}};", script, flags=re.DOTALL)
        words = set(re.findall(r"^\s+(\w+):", block, flags=re.MULTILINE))
        assert set(known.values()) <= words <= set(SignUpState)


def test_example_answer_is_one_of_the_gateways() -> None:
    found = json.loads((PAGE / "sign-up.json").read_text(encoding="utf-8"))
    assert CustomerSignUp.model_validate(found).model_dump(mode="json") == found
