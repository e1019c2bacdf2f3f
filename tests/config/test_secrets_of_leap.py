"""The aggregator's key and the shared secret of its webhooks are references, as every secret is."""

from pathlib import Path

import pytest

from gateway.config.loader import load_settings
from gateway.domain.errors import InvalidInput
from tests.config.test_settings import write

ACCOUNT = {"environment": "staging", "key": "env:LEAP_TEST_KEY"}
SIGNAL = {"secret": "env:LEAP_TEST_SECRET"}


def test_the_key_and_the_secret_are_read_from_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEAP_TEST_KEY", "the-key-itself")
    monkeypatch.setenv("LEAP_TEST_SECRET", "the-shared-secret-itself")
    found = load_settings(write(tmp_path, leap={"account": ACCOUNT}, signals={"leap": SIGNAL}))
    assert found.leap.account is not None
    assert found.signals.leap is not None
    assert found.leap.account.key.get_secret_value() == "the-key-itself"
    assert found.signals.leap.secret.get_secret_value() == "the-shared-secret-itself"
    assert "itself" not in repr(found)


@pytest.mark.parametrize(
    ("leap", "signals", "place"),
    [
        ({"account": ACCOUNT | {"key": "plain-text-key-0123"}}, {}, "leap.account.key"),
        ({}, {"leap": {"secret": "plain-text-secret-0123"}}, "signals.leap.secret"),
    ],
)
def test_a_secret_in_plain_text_is_refused_and_not_repeated(
    tmp_path: Path, leap: dict[str, object], signals: dict[str, object], place: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_settings(write(tmp_path, leap=leap, signals=signals))
    assert place in str(caught.value)
    assert "plain-text" not in str(caught.value)
