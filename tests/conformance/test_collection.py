"""Profiles, simulators and vectors name the same products, and what is left out stops the collection."""

from pathlib import Path

from tests.conformance.coverage import VECTORS, disagreements
from tests.conformance.rig import CODECS, FACES, PRODUCTS, STEERED


def test_products_of_directory_have_profile_simulator_and_vectors() -> None:
    assert disagreements(set(PRODUCTS), set(FACES), VECTORS) == []


def test_products_are_at_least_twelve_and_most_are_steered() -> None:
    assert len(PRODUCTS) >= 12
    assert len(STEERED) >= 10


def test_faces_name_their_profile() -> None:
    assert {name: face.profile for name, face in FACES.items()} == {name: name for name in FACES}


def test_products_without_setpoints_have_a_profile_without_them() -> None:
    unsteered = set(PRODUCTS) - set(STEERED)
    assert all(CODECS[name].document.watchdog is None for name in unsteered)


def test_disagreements_product_left_out_anywhere_is_named(tmp_path: Path) -> None:
    for name in ("whole", "no-face", "no-profile"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sample.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    faults = disagreements({"whole", "no-face", "no-vectors", "empty"}, {"whole", "no-profile", "no-vectors", "empty"},
                           tmp_path)  # fmt: skip
    assert [fault.split(":")[0] for fault in faults] == ["empty", "no-face", "no-profile", "no-vectors"]
    assert "vectors" in faults[0]
    assert "simulator" in faults[1]
    assert "profile" in faults[2]


def test_disagreements_directory_that_is_not_there_names_every_product(tmp_path: Path) -> None:
    assert disagreements({"a"}, {"a"}, tmp_path / "nowhere") == ["a: no vectors in tests/vectors/"]
