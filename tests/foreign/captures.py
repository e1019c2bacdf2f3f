"""What published samples of real products say against a mistake in a profile."""

from gateway.profiles.compiled.variant import PointProduct
from gateway.profiles.language.product import ProfileDocument
from tests.foreign.mutants import READ, in_profile, mutants
from tests.profiles.test_vectors import FILES, disagreements, vector_of

# `decoded` samples have no words of the product
PROVING = ("capture", "maker", "library")


def found_by_captures(document: ProfileDocument) -> dict[tuple[str, str], list[str]]:
    """By quantity and mistake, the samples that the profile with the mistake reads otherwise than they are."""
    vectors = {path.stem: vector_of(path) for path in FILES if path.parent.name == document.profile}
    proving = {name: vector for name, vector in vectors.items() if vector.kind in PROVING and vector.variant == ""}
    found: dict[tuple[str, str], list[str]] = {}
    for quantity in READ:
        for mutant in mutants(document, quantity):
            wrong = PointProduct(in_profile(document, mutant))
            found[quantity, mutant.name] = [name for name, vector in proving.items() if disagreements(vector, wrong)]
    return found
