"""`gateway profiles new` writes files that work as they are: the profile is valid and reads the face."""

import asyncio
import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from gateway.profiles.loader import load_profile
from simulators.battery import Batteries
from simulators.faces.plant import Plant
from tests.builders.homes import homes
from tests.cli.test_cli import run
from tests.profiles.test_vectors import Nothing, disagreements, uncovered, vector_of

NAME = "example-one"
FILES = [f"device_profiles/{NAME}.yaml", "simulators/faces/example_one.py", f"tests/vectors/{NAME}/none.yaml"]


def made(directory: Path) -> Path:
    assert run("profiles", "new", NAME, "--into", str(directory)).exit_code == 0
    return directory


def test_new_product_is_three_files_and_a_valid_profile_that_only_reads(tmp_path: Path) -> None:
    made(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(FILES)
    told = run("profiles", "check", str(tmp_path / FILES[0]), "--json")
    assert told.exit_code == 0
    (good,) = json.loads(told.stdout)["good"]
    assert (good["profile"], good["sequences"]) == (NAME, 0)
    assert not [word for path in FILES for word in ("TODO", "@") if word in (tmp_path / path).read_text()]


def test_new_products_note_about_vectors_is_one_as_the_vectors_have_it(tmp_path: Path) -> None:
    made(tmp_path)
    Nothing.model_validate(yaml.safe_load((tmp_path / FILES[2]).read_text(encoding="utf-8")))
    assert uncovered({NAME}, tmp_path / "tests" / "vectors") == []


@pytest.mark.real_time
async def test_new_products_profile_reads_its_face_and_captures_a_vector_of_it(tmp_path: Path) -> None:
    made(tmp_path)
    spec = importlib.util.spec_from_file_location("example_one", tmp_path / FILES[1])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    face = module.ExampleOne(Plant(Batteries(homes(1, soc_start_pct=60.0), guard=False), 0))
    connection = await face.start()
    out = tmp_path / "vector.yaml"
    ask = ("profiles", "capture", NAME, connection.url, "--dir", str(tmp_path / "device_profiles"), "--out", str(out))
    try:
        face.step(1.0)
        told = await in_thread(*ask)
    finally:
        await face.stop()
    assert told == 0
    vector, product = vector_of(out), load_profile(tmp_path / FILES[0]).product
    assert product is not None
    assert disagreements(vector, product) == []
    assert vector.readings["soc_pct"] == pytest.approx(60, abs=1.01)
    assert vector.identity == ("model",)


async def in_thread(*args: str) -> int:
    return (await asyncio.to_thread(run, *args)).exit_code


def test_new_product_replaces_nothing_and_then_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "simulators" / "faces").mkdir(parents=True)
    (tmp_path / FILES[1]).write_text("mine", encoding="utf-8")
    told = run("profiles", "new", NAME, "--into", str(tmp_path))
    assert (told.exit_code, (tmp_path / FILES[1]).read_text(encoding="utf-8")) == (2, "mine")
    assert f"{FILES[1]}: is there already" in told.stderr
    assert not (tmp_path / FILES[0]).exists()


@pytest.mark.parametrize("name", ["", "Example", "1st", "a_b", "a--b", "../a", "a" * 41])
def test_new_product_of_a_name_that_none_may_have_is_refused(name: str, tmp_path: Path) -> None:
    assert run("profiles", "new", name, "--into", str(tmp_path)).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_new_product_needs_a_checkout_or_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("profiles", "new", NAME).exit_code == 2
    for part in ("device_profiles", "simulators/faces", "tests/vectors"):
        (tmp_path / part).mkdir(parents=True)
    assert run("profiles", "new", NAME).exit_code == 0
    assert all((tmp_path / path).is_file() for path in FILES)
