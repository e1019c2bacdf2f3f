"""Every mend that `python -m tests.mutants` takes back is still where it looks for it."""

import pytest

from tests.mutants import MUTANTS, Mutant, reverted


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_takes_its_mend_back(mutant: Mutant) -> None:
    for name, source in reverted(mutant).items():
        compile(source, name, "exec")


def test_mutant_whose_text_is_no_longer_there_is_an_error() -> None:
    gone = Mutant(name="gone", mend="Nothing.", edits=(("gateway/clock.py", "a text that stands nowhere", ""),))
    with pytest.raises(ValueError, match="has 0 times"):
        reverted(gone)
