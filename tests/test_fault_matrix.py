"""Every fault of the matrix has a test, every mark names one, and the document says what they show."""

import pytest

from tests.faults import DOCUMENT, FAULTS, carriers, table


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_has_a_test_that_carries_it(fault: str) -> None:
    assert carriers().get(fault), f"no test carries {fault}: {FAULTS[fault]}"


def test_fault_that_a_test_carries_is_in_the_matrix() -> None:
    assert set(carriers()) <= set(FAULTS)


def test_fault_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == table(), "python -m tests.faults --write"
