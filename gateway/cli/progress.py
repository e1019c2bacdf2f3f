"""Shows on a terminal how far long work is: on standard error, so that it never stands in a pipe or a file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from gateway.cli.shared import err
from gateway.progress import Progress as Told
from gateway.progress import unseen


@contextmanager
def progress(what: str) -> Iterator[Told]:
    """A bar while the block runs, gone after it, and what it is to be told; nothing unless standard error is a
    terminal. The bar only says that work goes on until it is told how much there is."""
    if not sys.stderr.isatty():
        yield unseen
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
