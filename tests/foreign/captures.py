"""What published samples of real products say against a mistake in a profile."""

from gateway.profiles.compiled.variant import PointProduct
from gateway.profiles.language.product import ProfileDocument
from tests.foreign.mutants import READ, in_profile, mutants
from tests.profiles.test_vectors import FILES, Vector, disagreements, vector_of

PROVING = ("capture", "maker", "library")


def proves(vector: Vector) -> bool:
    """A `decoded` sample has no words of the product, which matters where a product has words."""
    return vector.variant == "" and (vector.kind in PROVING or bool(vector.raw.http or vector.raw.mqtt))


def found_by_captures(document: ProfileDocument) -> dict[tuple[str, str], list[str]]:
    """By quantity and mistake, the samples that the profile with the mistake reads otherwise than they are. Where one
    doubts a sign, none confirms it."""
    vectors = {path.stem: vector_of(path) for path in FILES if path.parent.name == document.profile}
    proving = {name: vector for name, vector in vectors.items() if proves(vector)}
    doubted = {quantity for vector in vectors.values() for quantity in vector.doubts}
    found: dict[tuple[str, str], list[str]] = {}
    for quantity in READ:
        for mutant in mutants(document, quantity):
            wrong = PointProduct(in_profile(document, mutant))
            noticed = [name for name, vector in proving.items() if disagreements(vector, wrong)]
            found[quantity, mutant.name] = [] if mutant.kind == "sign" and quantity in doubted else noticed
    return found
