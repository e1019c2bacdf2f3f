"""What is said of others' confirmation is what they notice; the client libraries' part is in `tests/foreign`."""

from gateway.profiles.confirmed import load_confirmed
from tests.evidence import PROFILES, README, collected, documents, written
from tests.foreign import commands
from tests.foreign.peers import FOREIGN
from tests.profiles.test_vectors import FILES

LIBRARIES = {foreign.library for foreign in FOREIGN}
CONFIRMED = load_confirmed(PROFILES)


def test_readme_has_the_table_of_the_data() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == written(text, CONFIRMED), "run python -m tests.evidence --write"


def test_published_samples_notice_what_the_data_says_of_them() -> None:
    samples = {
        product: {
            quantity: {mistake: [who for who in names if who not in LIBRARIES] for mistake, names in mistakes.items()}
            for quantity, mistakes in quantities.items()
        }
        for product, quantities in CONFIRMED.items()
    }
    assert samples == collected(documents(), {}), "run python -m tests.evidence --write"


def test_everybody_who_confirms_is_a_client_library_or_a_sample() -> None:
    known = LIBRARIES | {path.stem for path in (*FILES, *commands.FILES)}
    named = {
        who
        for quantities in CONFIRMED.values()
        for mistakes in quantities.values()
        for names in mistakes.values()
        for who in names
    }
    assert named <= known
