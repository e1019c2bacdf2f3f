"""Links that are watched: what was written, in order, and a hook that may make trouble between two writes."""

from collections.abc import Callable, Mapping, Sequence

from gateway.ports.links import FoundModel, PointLink, PointLinks, PointTarget
from gateway.profiles.compiled.points import Read
from gateway.profiles.compiled.sequences import Request


class RecordingLinks:
    """`writes` are the requests handed to any link, `before` and `after` are called with how many there were."""

    def __init__(self, links: PointLinks) -> None:
        self.inner = links
        self.writes: list[Request] = []
        self.before: Callable[[int], None] = ignored
        self.after: Callable[[int], None] = ignored

    def link(self, target: PointTarget) -> PointLink:
        return _RecordingLink(self, self.inner.link(target))

    async def close(self) -> None:
        await self.inner.close()

    def points(self) -> list[str]:
        """Names of the points written, in order."""
        return [write.point for request in self.writes for write in request.writes]


class _RecordingLink:
    def __init__(self, links: RecordingLinks, inner: PointLink) -> None:
        self._links = links
        self._inner = inner

    @property
    def heard_mono_ms(self) -> int | None:
        return self._inner.heard_mono_ms

    @property
    def notice(self) -> str | None:
        return self._inner.notice

    @property
    def models(self) -> Mapping[str, FoundModel]:
        return self._inner.models

    async def open(self) -> None:
        await self._inner.open()

    async def read(self, points: Sequence[str]) -> Mapping[str, Read]:
        return await self._inner.read(points)

    async def write(self, request: Request) -> None:
        links = self._links
        links.writes.append(request)
        number = len(links.writes)
        links.before(number)
        try:
            await self._inner.write(request)
        finally:
            links.after(number)

    async def close(self) -> None:
        await self._inner.close()


def ignored(_number: int) -> None:
    """Nobody wants to know."""
