"""Poisoned profiles (fault F35, threat T8): each is refused with file, line and path, and nothing else ever happens."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.errors import InvalidInput
from gateway.profiles.compile import compile_profile
from gateway.profiles.loader import load_profile, load_profiles, parse_profile
from gateway.yaml_lines import ALIASES_MAX, BYTES_MAX, DEPTH_MAX, FAULTS_MAX
from tests.builders.profiles import HTTP, MODBUS, MQTT, SAMPLES, changed

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "device_profiles" / "reference-mqtt.yaml").read_text(encoding="utf-8")
INSTALLED = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "device_profiles").glob("*.yaml"))}
GOOD = SAMPLES | INSTALLED
PROBLEM = re.compile(r"poisoned\.yaml:(?P<line>[0-9]+): (?P<path>.+?): .+", re.DOTALL)


def problems(text: str) -> list[str]:
    """Every fault of `text`; each is one printable line that names file, line and path."""
    with pytest.raises(InvalidInput) as fault:
        parse_profile(text, name="poisoned.yaml")
    lines = text.count("\n") + 2  # a fault may be found at the end
    for problem in fault.value.problems:
        found = PROBLEM.fullmatch(problem)
        assert found is not None, problem
        assert 1 <= int(found["line"]) <= lines
        assert problem.isprintable()
        assert len(problem) < 1000
    assert 0 < len(fault.value.problems) <= FAULTS_MAX + 1
    return fault.value.problems


def line_of(text: str, words: str) -> int:
    """The number of the only line that holds `words`."""
    (number,) = [number for number, line in enumerate(text.splitlines(), start=1) if words in line]
    return number


@pytest.mark.parametrize("name", GOOD)
def test_profile_that_is_good_is_taken(name: str) -> None:
    assert parse_profile(GOOD[name], name=f"{name}.yaml").profile == name


# -- text ------------------------------------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [[[[[[[[x]]]]]]]]\n" + "".join(f"a{i}: &a{i} [[[[*a{i - 1}]]]]\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "(document)"),
        ("- 1\n- 2\n", 1, "(document)"),
        ("language: 1\nprofile: [\n", 3, "not YAML"),
        ("language: 1\n\tprofile: x\n", 2, "not YAML"),
        ("language: 1\x00\n", 1, "not YAML"),
        ('language: "\\UFFFFFFFF"\n', 1, "not YAML"),
        ("language: 1\n---\nlanguage: 1\n", 2, "more than one document"),
        ("!!python/object/apply:os.system ['touch /tmp/poisoned']", 1, "tags are not allowed"),
        ("language: 1\nmaker: !!python/name:os.system x\n", 2, "tags are not allowed"),
        ("language: 1\nmaker: !!python/object/new:os.system [x]\n", 2, "tags are not allowed"),
        ("language: 1\nmaker: !!binary aGVsbG8=\n", 2, "tags are not allowed"),
        ("language: 1\nmaker: !local x\n", 2, "tags are not allowed"),
        ("%TAG ! tag:yaml.org,2002:python/\n---\nmaker: !name:os.system x\n", 3, "tags are not allowed"),
        ("language: 1\nprofile: x\nlanguage: 1\n", 3, "stands twice (first on line 1)"),
        ("points:\n  a: {register: 1, type: u16, register: 2}\n", 2, "'register' stands twice"),
        ("? [a, b]\n: 1\n", 1, "a key is a plain text"),
        ("? {a: b}\n: 1\n", 1, "a key is a plain text"),
        ("&key a: 1\n", 1, "a key is a plain text"),
        ("a: &a [1]\n*a : 1\n", 2, "a key is a plain text"),
        ("a: *nowhere\n", 1, "nothing before it is anchored"),
        ("a: &a [*a]\n", 1, "nothing before it is anchored"),
        ("a: &a 1\nb: &a 2\n", 2, "stands twice"),
        (LAUGHS, 5, "more than 50000 values"),
        (CHAIN, 5, "nested deeper"),
        ("a: &a x\nb: [" + "*a, " * (ALIASES_MAX + 1) + "]\n", 2, "aliases"),
        ("a: " + "[" * (DEPTH_MAX + 1), 1, "nested deeper"),
        ("a: " + "[" * 100_000, 1, "nested deeper"),
        ("a: " + "{a: " * 50_000, 1, "nested deeper"),
        ("- " * 10_000 + "a", 1, "nested deeper"),
        ("a: [" + "0," * 60_000 + "]", 1, "more than 50000 values"),
        ("a: " + "x" * BYTES_MAX, 1, "larger than"),
        ("a: " + "é" * (BYTES_MAX - 10), 1, "larger than"),
        ("notes: .nan\n", 1, "is no number here"),
        ("notes: -.inf\n", 1, "is no number here"),
    ],
)
def test_poisoned_text_is_refused_at_its_line(text: str, line: int, words: str) -> None:
    (problem, *_) = problems(text)
    assert problem.startswith(f"poisoned.yaml:{line}: ")
    assert words in problem


@pytest.mark.parametrize("content", [b"\xff\xfe", b"language: 1\nprofile: \xe9\n", "language: 1\n".encode("utf-32")])
def test_poisoned_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "poisoned.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^poisoned\.yaml:[12]: \(document\): "):
        load_profile(path)


def test_poisoned_file_is_not_read_beyond_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "poisoned.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidInput, match="larger than"):
        load_profile(path)


def test_poisoned_file_under_another_name_or_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(MODBUS, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"other\.yaml:3: profile: says 'sample-modbus'"):
        load_profiles(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "lost.yaml").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InvalidInput) as fault:
        load_profiles(tmp_path)
    assert sorted(problem.split(":")[0] for problem in fault.value.problems) == [
        "folder.yaml", "lost.yaml", "other.yaml",
    ]  # fmt: skip


def test_poisoned_file_beside_good_ones_does_not_hide_their_faults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("language: 2\n", encoding="utf-8")
    (tmp_path / "b.yaml").write_text("!!python/none", encoding="utf-8")
    (tmp_path / "sample-modbus.yaml").write_text(MODBUS, encoding="utf-8")
    with pytest.raises(InvalidInput) as fault:
        load_profiles(tmp_path)
    assert {problem.split(":")[0] for problem in fault.value.problems} == {"a.yaml", "b.yaml"}


# -- meaning ---------------------------------------------------------------------------------------------------

Raw = dict[str, Any]


def at(*path: str | int, value: object = None) -> Callable[[Raw], object]:
    """A change: `value` at `path`."""

    def change(raw: Raw) -> None:
        here: Any = raw
        for part in path[:-1]:
            here = here[part]
        here[path[-1]] = value

    return change


POINT = {"register": 1, "type": "u16"}
WRITABLE = {"register": 205, "type": "u16", "access": "rw", "storage": "volatile"}


@pytest.mark.parametrize(
    ("text", "change", "path"),
    [
        # unknown keys and names that lead somewhere else
        (MODBUS, at("exec", value="rm -rf /"), "exec"),
        (MODBUS, at("points", "soc", "expression", value="raw * 2"), "points.soc.expression"),
        (MODBUS, at("include", value="../other.yaml"), "include"),
        (MODBUS, at("profile", value="../../etc/passwd"), "profile"),
        (MODBUS, at("profile", value="a/b"), "profile"),
        (MODBUS, at("profile", value="x" * 65), "profile"),
        (MODBUS, at("points", "/x", value=POINT), "points./x"),
        (MODBUS, at("points", "$(x)", value=POINT), "points.$(x)"),
        # numbers
        (MODBUS, at("points", "soc", "scale", value="nan"), "points.soc.scale"),
        (MODBUS, at("points", "soc", "scale", value="1e999"), "points.soc.scale"),
        (MODBUS, at("points", "soc", "scale", value=0), "points.soc.scale"),
        (MODBUS, at("points", "soc", "range", value=[5, 1]), "points.soc.range"),
        (MODBUS, at("points", "soc", "range", value=["-inf", "inf"]), "points.soc.range.0"),
        (MODBUS, at("facts", "standby_w", value="nan"), "facts.standby_w"),
        (MODBUS, at("facts", "command_latency_s", value=-1), "facts.command_latency_s"),
        (MODBUS, at("facts", "settle_s", value=-1), "facts.settle_s"),
        (MODBUS, at("facts", "settle_s", value=301), "facts.settle_s"),
        (MODBUS, at("watchdog", "lease_s", value=10**9), "watchdog.lease_s"),
        (MODBUS, at("points", "soc", "register", value=65536), "points.soc.register"),
        (MODBUS, at("points", "soc", "register", value=int("9" * 39)), "points.soc.register"),
        (MODBUS, at("points", "soc", "register", value="9" * 5000), "points.soc.register"),
        (MODBUS, at("points", "grid_power", "register", value=65535), "points.grid_power.register"),
        (MODBUS, at("points", "soc", "scale_factor", value="nowhere"), "points.soc.scale_factor"),
        # registers that are not the profile's to write
        (MODBUS, at("control", "begin", 0, "write", value="nowhere"), "control.begin.0"),
        (MODBUS, at("control", "begin", 0, "write", value="soc"), "control.begin.0"),
        (MODBUS, at("control", "begin", 0, "write", value=400), "control.begin.0.write"),
        (MODBUS, at("control", "hold", 0, "together", 0, "write", value="soc"), "control.hold.0"),
        (MODBUS, at("control", "release", 1, "restore", value="soc"), "control.release.1"),
        (MODBUS, at("control", "saves", value=["soc"]), "control.saves"),
        (MODBUS, at("points", "evil", value=WRITABLE), "points.evil.register"),
        (MODBUS, at("points", "evil", value=WRITABLE | {"register": 199, "type": "u64"}), "points.evil.register"),
        (MODBUS, at("points", "evil", value=WRITABLE | {"unit_id": "other"}), "points.evil.unit_id"),
        (MODBUS, at("points", "evil", value=WRITABLE | {"storage": "stored"}), "points.evil.writes_per_day_max"),
        (MODBUS, at("points", "evil", value=WRITABLE | {"path": "/reboot"}), "points.evil"),
        (MODBUS, at("modbus", "units", value={"main": 256}), "modbus.units.main"),
        (MODBUS, at("modbus", "registers_max", value=126), "modbus.registers_max"),
        # a setpoint that would go the wrong way, or wear out what it writes
        (MODBUS, lambda raw: raw["points"]["setpoint"].pop("sign"), "control.discharge.0"),
        (MODBUS, at("points", "setpoint", "sign", value="import_positive"), "control.discharge.0"),
        (MODBUS, lambda raw: raw["readings"]["battery_w"].pop("sign"), "readings.battery_w.sign"),
        (MODBUS, lambda raw: raw["readings"]["battery_w"].pop("range"), "readings.battery_w.range"),
        (MODBUS, lambda raw: raw["readings"].pop("soc_pct"), "readings.soc_pct"),
        (MODBUS, at("control", "hold", value=[{"write": "work_mode", "value": 1}]), "control.hold.0"),
        (MODBUS, at("control", "hold", value=[{"write": "setpoint", "value": 0}]), "control.hold"),
        (MODBUS, lambda raw: raw["control"].pop("release"), "control.release"),
        (MODBUS, lambda raw: raw.pop("watchdog"), "watchdog"),
        (MODBUS, lambda raw: raw["watchdog"].pop("reverts_within_s"), "watchdog.reverts_within_s"),
        (MODBUS, at("watchdog", "point", value="soc"), "control.discharge"),
        (INSTALLED["victron-gx-modbus"], at("control", "settle_s", value=5), "control.settle_s"),
        # places on the network
        (HTTP, at("points", "power", "path", value="http://evil.example/x"), "points.power.path"),
        (HTTP, at("points", "power", "path", value="//evil.example/x"), "points.power.path"),
        (HTTP, at("points", "power", "path", value="/api/../../admin"), "points.power.path"),
        (HTTP, at("points", "power", "path", value="/a b"), "points.power.path"),
        (HTTP, at("points", "power", "path", value="/a\r\nHost: evil"), "points.power.path"),
        (HTTP, at("points", "power", "path", value="/a@evil"), "points.power.path"),
        (HTTP, at("points", "reserve", "write", "path", value="/../x"), "points.reserve.write.path"),
        (HTTP, at("points", "reserve", "write", "method", value="DELETE"), "points.reserve.write.method"),
        (HTTP, at("points", "power", "pointer", value="/" + "a/" * 20), "points.power.pointer"),
        (HTTP, at("http", "auth", "name", value="X-Token\r\nEvil"), "http.auth.name"),
        (HTTP, at("http", "auth", "name", value="Cookie: a"), "http.auth.name"),
        (HTTP, at("http", "auth", value={"kind": "login", "path": "//evil", "token": "/t"}), "http.auth.path"),
        (HTTP, at("http", "body_bytes_max", value=1 << 40), "http.body_bytes_max"),
        (MQTT, at("points", "power", "topic", value="N/#"), "points.power.topic"),
        (MQTT, at("points", "power", "topic", value="N/+/power"), "points.power.topic"),
        (MQTT, at("points", "power", "topic", value="N/{other}/power"), "points.power.topic"),
        (MQTT, at("points", "power", "topic", value="N/x{portal}/power"), "points.power.topic"),
        (MQTT, at("points", "power", "topic", value="$SYS/x"), "points.power.topic"),
        (MQTT, at("points", "power", "topic", value="x\0y"), "points.power.topic"),
        (MQTT, at("points", "setpoint", "write", "topic", value="W/#"), "points.setpoint.write.topic"),
        (MQTT, at("points", "setpoint", "write", "topic", value="W/{other}"), "points.setpoint.write.topic"),
        (MQTT, at("mqtt", "keepalive", "topic", value="R/{other}"), "mqtt.keepalive.topic"),
        (MQTT, at("mqtt", "variables", value=["../x"]), "mqtt.variables.0"),
        (REFERENCE, at("messages", "live", "topic", value="gateway/#"), "messages.live.topic"),
        (REFERENCE, at("commands", "topic", value="gateway/+/command"), "commands.topic"),
    ],
)
def test_poisoned_meaning_is_refused_at_its_path_and_line(
    text: str, change: Callable[[Raw], object], path: str
) -> None:
    poisoned = changed(text, change)
    found = [problem for problem in problems(poisoned) if problem.split(": ")[1] == path]
    assert found, problems(poisoned)
    assert int(found[0].split(":")[1]) in lines_on_the_way(poisoned, path)[-1:]


def lines_on_the_way(text: str, path: str) -> list[int]:
    """The lines of the keys that `path` passes, found by another reader than the one under test."""
    here, lines = yaml.compose(text, Loader=yaml.SafeLoader), [1]
    for part in path.split("."):
        if isinstance(here, yaml.SequenceNode) and part.isdecimal():
            here = here.value[int(part)]
            lines.append(here.start_mark.line + 1)
        elif isinstance(here, yaml.MappingNode):
            found = [(key, value) for key, value in here.value if key.value == part]
            if found:
                lines.append(found[0][0].start_mark.line + 1)
                here = found[0][1]
    return lines


def test_poisoned_value_is_named_by_its_own_line() -> None:
    poisoned = MODBUS.replace("saves: [work_mode]", "saves: [no_such_point]")
    found = problems(poisoned)
    assert any(p.startswith(f"poisoned.yaml:{line_of(poisoned, 'saves:')}: control.saves: ") for p in found)
    poisoned = MODBUS.replace("soc: {register: 101,", "soc: {register: 101, colour: red,")
    (problem,) = problems(poisoned)
    assert problem.startswith(f"poisoned.yaml:{line_of(poisoned, 'colour')}: points.soc.colour: ")


@pytest.mark.parametrize(
    ("key", "shown"), [("../x", "../x"), ("a.b", "a.b"), ("a\x1b[31m", r"a\x1b[31m"), ("a\u202eb", r"a\u202eb")]
)
def test_poisoned_key_is_named_without_doing_anything(key: str, shown: str) -> None:
    assert any(
        f": points.{shown}: " in problem for problem in problems(changed(MODBUS, at("points", key, value=POINT)))
    )
    told = problems(changed(REFERENCE, at("messages", "live", "points", key, value={"key": "x"})))
    assert any(f": messages.live.points.{shown}: " in problem for problem in told)


def test_poisoned_profile_runs_nothing(tmp_path: Path) -> None:
    """In a process of its own: no file, no child, no import comes of reading it."""
    mark = tmp_path / "ran"
    poisoned = tmp_path / "poisoned.yaml"
    poisoned.write_text(f"!!python/object/apply:pathlib.Path.touch\n- !!python/object/apply:pathlib.Path ['{mark}']\n")
    read = "import sys; from pathlib import Path; from gateway.profiles.loader import load_profile; "
    command = [sys.executable, "-c", read + "load_profile(Path(sys.argv[1]))", str(poisoned)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, mark.exists()) == (1, False)
    assert "InvalidInput: poisoned.yaml:1: (document): tags are not allowed" in done.stderr


def test_profiles_package_has_no_way_to_run_data() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    for word in (
        r"\beval\(",
        r"\bexec\(",
        r"\bpickle\b",
        r"\byaml\.load\(",
        r"\byaml\.unsafe",
        r"\b__import__\(",
        "jinja",
    ):
        assert not re.search(word, source), word


# -- anything else -----------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12),
    st.sampled_from(["", "..", "/", "#", "{device}", "nan", "-1", "u16", "setpoint_w", "work_mode", "0x", "1e400"]),
)  # fmt: skip
VALUES = st.one_of(
    SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.text(max_size=6), SCALARS, max_size=3), st.just([[]])
)


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in inside for place in places(inner, (*path, key)))]


DOCUMENTS = {name: yaml.safe_load(text) for name, text in GOOD.items()}
PLACES = {name: places(document)[1:] for name, document in DOCUMENTS.items()}


@pytest.mark.parametrize("key", ["\x1f", 'a"b', "a\\b", ""])
def test_member_name_that_no_message_can_have_is_refused_with_its_place(key: str) -> None:
    document = yaml.safe_load(GOOD["reference-mqtt"])
    document["messages"]["live"]["points"]["battery_w"]["key"] = key
    with pytest.raises(InvalidInput, match=r"messages\.live\.points\.battery_w\.key"):
        parse_profile(yaml.safe_dump(document, sort_keys=False), name="poisoned.yaml")


@given(st.data())
def test_good_profile_changed_anywhere_is_good_or_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(GOOD)))
    document = yaml.safe_load(GOOD[name])
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(PLACES[name]))
        here: Any = document
        try:
            for part in path:
                here = here[part]
            if data.draw(st.booleans()):
                del here[last]
            else:
                here[last] = data.draw(VALUES)
        except (KeyError, IndexError, TypeError):
            continue
    text = yaml.safe_dump(document, sort_keys=False)
    try:
        good = parse_profile(text, name="poisoned.yaml")
    except InvalidInput:
        problems(text)
    else:
        compile_profile(good)


@given(st.data())
def test_good_text_with_characters_changed_is_good_or_refused(data: st.DataObject) -> None:
    text = GOOD[data.draw(st.sampled_from(sorted(GOOD)))]
    for _ in range(data.draw(st.integers(1, 4))):
        at_, length = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 6))
        other = data.draw(
            st.text(max_size=6) | st.sampled_from(["&a ", "*a", "!!x ", "\n", "  ", "{", "]", '"', "%", "\x00"])
        )
        text = text[:at_] + other + text[at_ + length :]
    try:
        good = parse_profile(text, name="poisoned.yaml")
    except InvalidInput:
        problems(text)
    else:
        compile_profile(good)
