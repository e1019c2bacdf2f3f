"""How far a fleet may still have to go, seen from outside: by the goals that its events tell, and by the batteries."""

from collections.abc import Mapping

from gateway.domain.control.ramp import DT_S_MAX


class RampLeft:
    """`left_w`: what all events together may still have to move. As long as one of them has to, the fleet moves by
    `w_per_s`, however many stand still."""

    def __init__(self, w_per_s: float) -> None:
        self.left_w = 0.0
        self._w_per_s = w_per_s
        self._goals_w: dict[str, float] = {}

    def observe(self, goals_w: Mapping[str, tuple[float, float]], s: float) -> None:
        """`goals_w` by event: what it is to give, and what its homes gave as it was first seen; `s` after the last."""
        self.left_w = max(self.left_w - self._w_per_s * min(s, DT_S_MAX), 0.0)
        for name, (goal_w, now_w) in goals_w.items():
            self.left_w += abs(goal_w - self._goals_w.get(name, now_w))
        self._goals_w = {name: goal_w for name, (goal_w, _) in goals_w.items()}
