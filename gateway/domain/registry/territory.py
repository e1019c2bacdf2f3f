"""Where a home is, as far as operations need it, and areas that name homes by that.

No street and no name: a postcode, a county, a utility and a feeder are each shared by many homes.
"""

from dataclasses import dataclass, fields

MEMBERS = ("postcode", "county", "utility", "feeder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Territory:
    """Where a home is; "" = not known."""

    postcode: str = ""
    county: str = ""
    utility: str = ""
    feeder: str = ""


NOWHERE = Territory()


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Homes by where they are and which programs they are in. Of each member that names something a home must be one;
    capitals and spaces make no difference to where a home is. An area that names nothing has no home."""

    postcodes: tuple[str, ...] = ()
    counties: tuple[str, ...] = ()
    utilities: tuple[str, ...] = ()
    feeders: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    def named(self) -> dict[str, tuple[str, ...]]:
        """What it names of where homes are, by the member of `Territory`."""
        given = (self.postcodes, self.counties, self.utilities, self.feeders)
        return {member: texts for member, texts in zip(MEMBERS, given, strict=True) if texts}

    def __bool__(self) -> bool:
        return any(getattr(self, member.name) for member in fields(self))


def folded(text: str) -> str:
    """A text as it is compared."""
    return " ".join(text.split()).casefold()
