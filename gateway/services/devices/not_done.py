"""Why the newest commands of each kind were not carried out."""

from gateway.domain.commands import CommandOp

ASKED = {CommandOp.RESERVE: "reserve", CommandOp.RELEASE: "release"}


def asked(op: CommandOp) -> str:
    """What a command asks for, in a word; setpoints, holds and blocks are setpoints."""
    return ASKED.get(op, "setpoint")


class NotDone:
    """Remembers the reason of each."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    @property
    def reasons(self) -> dict[str, str]:
        """By `setpoint`, `reserve` and `release`."""
        return {what: why for what, why in self._reasons.items() if why}

    def is_news(self, what: str, why: str) -> bool:
        """Note why a command was not carried out, "" = it was; whether that is another reason than before."""
        before, self._reasons[what] = self._reasons.get(what), why
        return bool(why) and why != before
