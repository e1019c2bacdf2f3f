"""Where the files of the service lie: in memory for what came by HTTP, on a disk for what came by SFTP."""

from typing import Protocol


class Files(Protocol):
    """Files by their path in the service, `/interval-data/...`."""

    def read(self, path: str) -> bytes:
        """FileNotFoundError where there is none."""
        ...

    def write(self, path: str, content: bytes) -> None: ...

    def move(self, old: str, new: str) -> None:
        """FileNotFoundError where there is none."""
        ...


class MemoryFiles:
    """Files that nobody else can touch."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        if path not in self.contents:
            raise FileNotFoundError(path)
        return self.contents[path]

    def write(self, path: str, content: bytes) -> None:
        self.contents[path] = content

    def move(self, old: str, new: str) -> None:
        self.contents[new] = self.read(old)
        del self.contents[old]
