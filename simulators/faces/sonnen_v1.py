"""A sonnenBatterie by its v1 status port (see `sonnen`)."""

from simulators.faces.sonnen import SonnenV1

__all__ = ["SonnenV1"]
