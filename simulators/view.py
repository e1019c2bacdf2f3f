"""The demo at a terminal: phase, power against target, faults, deliveries; plain lines where there is no terminal."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

BARS = " ▁▂▃▄▅▆▇█"
HISTORY = 72
PLAIN_EVERY_S = 5.0


@dataclass(slots=True)
class Facts:
    """What is shown; powers in W."""

    phase: str = "starting"
    elapsed_s: float = 0.0
    total_s: float = 1.0
    fleet_w: float = 0.0
    target_w: float | None = None
    devices: int = 0
    under_control: int = 0
    islanded: int = 0
    intervals_http: int = 0
    intervals_mqtt: int = 0
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=8))
    history: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))


def _sparkline(values: deque[float]) -> str:
    low, high = min(values, default=0.0), max(values, default=1.0)
    span = max(high - low, 1.0)
    return "".join(BARS[int((value - low) / span * (len(BARS) - 1))] for value in values)


def _screen(facts: Facts) -> Group:
    table = Table.grid(padding=(0, 2))
    target = "none" if facts.target_w is None else f"{facts.target_w / 1000:,.1f} kW"
    off = ""
    if facts.target_w:
        off = f"  ({(facts.fleet_w / facts.target_w - 1) * 100:+.1f} %)"
    table.add_row("fleet power", f"[bold]{facts.fleet_w / 1000:,.1f} kW[/bold]{off}", "target", target)
    table.add_row("homes", f"{facts.devices}", "under control", f"{facts.under_control}")
    table.add_row("intervals by HTTP", f"{facts.intervals_http}", "by MQTT", f"{facts.intervals_mqtt}")
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(bar_width=48), TextColumn("{task.percentage:>3.0f} %")
    )
    progress.add_task(facts.phase, total=facts.total_s, completed=int(min(facts.elapsed_s, facts.total_s)))
    return Group(
        Panel(
            Group(progress, table, Text(_sparkline(facts.history), style="cyan")), title="battery fleet gateway: demo"
        ),
        Text("\n".join(facts.notes), style="dim"),
    )


class View:
    """Shows `facts` until closed. All of it goes to standard error: results alone are on standard output."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.facts = Facts()
        self._console = Console(stderr=True, quiet=quiet)
        self._live: Live | None = None
        self._next_plain = 0.0
        self._began = time.monotonic()

    def __enter__(self) -> "View":
        if self._console.is_terminal:
            self._live = Live(_screen(self.facts), console=self._console, refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.update(_screen(self.facts))
            self._live.__exit__(None, None, None)
            self._live = None

    def note(self, text: str) -> None:
        """A thing that happened, with the second it happened in."""
        line = f"{time.monotonic() - self._began:6.1f} s  {text}"
        self.facts.notes.append(line)
        if self._live is None:
            self._console.print(line, highlight=False, soft_wrap=True)

    def update(self, change: Callable[[Facts], None]) -> None:
        change(self.facts)
        self.facts.elapsed_s = time.monotonic() - self._began
        self.facts.history.append(self.facts.fleet_w)
        if self._live is not None:
            self._live.update(_screen(self.facts))
        elif self.facts.elapsed_s >= self._next_plain:
            self._next_plain = self.facts.elapsed_s + PLAIN_EVERY_S
            f = self.facts
            target = "-" if f.target_w is None else f"{f.target_w / 1000:.1f}"
            self._console.print(
                f"{f.elapsed_s:6.1f} s  {f.phase:20} all homes {f.fleet_w / 1000:7.1f} kW  asked {target:>6} kW  "
                f"under control {f.under_control:3}  intervals by HTTP {f.intervals_http}, by MQTT {f.intervals_mqtt}",
                highlight=False,
                soft_wrap=True,
            )
