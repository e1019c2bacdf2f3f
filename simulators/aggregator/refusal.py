"""A request that the service refuses."""


class Refused(Exception):
    """Answered with this status and a body of the service's own shape."""

    def __init__(self, status: int, title: str, /, **details: object) -> None:
        super().__init__(f"{status} {title}")
        self.status = status
        self.title = title
        self.details = details
