"""Edge gateway for fleets of home batteries."""

__version__ = "0.2.0"
"""The release. State directories and archives of a newer one may not be read by an older one: `CHANGELOG.md` says."""
