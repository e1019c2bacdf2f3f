"""The table of folders and the import chain are those of the code, the table of products that of the profiles; the
changelog names tests that exist, and links lead somewhere."""

import re
import tomllib
from pathlib import Path

from typer.testing import CliRunner

from gateway.cli import cli
from gateway.domain.events.book import Refusal
from gateway.schemas.event import parse_event
from tests.products import written

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?:`(?P<folder>[a-z_/]+)/`|top) \| (?P<modules>.+) \|$", re.MULTILINE)


def test_architecture_names_every_module_in_the_row_of_its_folder() -> None:
    named = {
        row["folder"] or ".": set(re.findall(r"`([a-z0-9_]+)`", row["modules"])) for row in ROW.finditer(ARCHITECTURE)
    }
    missing = []
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        folder, name = path.parent.relative_to(ROOT / "gateway").as_posix(), path.stem
        if not name.startswith("__") and name not in named.get(folder, ()):
            missing.append(f"{folder}/{name}")
    assert missing == []


def test_architecture_names_no_folder_that_is_not_there() -> None:
    folders = [row["folder"] for row in ROW.finditer(ARCHITECTURE) if row["folder"]]
    assert [folder for folder in folders if not (ROOT / "gateway" / folder).is_dir()] == []


def test_architecture_import_chain_is_the_one_that_is_proven() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = {contract["name"]: contract.get("layers") for contract in contracts}
    for name in ("layers point down only", "inside the services", "inside the domain"):
        assert f"`{' > '.join(layers[name])}`" in ARCHITECTURE.replace("\n", " ")


def test_changelog_names_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/[a-z_/0-9]+\.py)(?:::(\w+))?`", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    for file, name in named:
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), name


def test_readme_has_the_products_of_the_profiles_and_is_short() -> None:
    assert written(README) == README, "python -m tests.products --write"
    assert len(README.splitlines()) <= 134


def test_readme_gateway_of_your_own_sends_an_event_that_is_one_and_leaves_no_file_to_commit() -> None:
    sent = re.search(r"^echo '(\{.+?\})' \| gateway dispatch send -$", README, re.MULTILINE | re.DOTALL)
    assert sent is not None
    assert parse_event(sent[1].encode(), source="rest").id == "e1"
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/fleet.csv", "/fleet.env", "/state/"} <= {*ignored}


def test_readme_commands_are_those_of_the_command_line() -> None:
    block = next(text for text in README.split("```")[1::2] if "gateway run" in text)
    named = re.findall(r"(?:^|\| )gateway ([a-z]+)(?: ([a-z]+))?", block, re.MULTILINE)
    assert len(named) == 4
    for words in named:
        assert CliRunner().invoke(cli, [*filter(None, words), "--help"]).exit_code == 0, words


def test_dispatch_document_lists_every_refusal() -> None:
    text = (ROOT / "docs" / "dispatch.md").read_text(encoding="utf-8").partition("## Refusals")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE) == [refusal.value for refusal in Refusal]


def test_documents_link_to_files_that_are_there() -> None:
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
