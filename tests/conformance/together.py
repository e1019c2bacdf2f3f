"""Cases that mostly wait, side by side: what fails is told by the case's name, all at once."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping

Case = Callable[[], Coroutine[None, None, None]]


async def together(cases: Mapping[str, Case]) -> None:
    """Run every case. Raises AssertionError with the first line of each failure."""
    done = await asyncio.gather(*(case() for case in cases.values()), return_exceptions=True)
    failed = {name: told(error) for name, error in zip(cases, done, strict=True) if error is not None}
    if failed:
        first = next(error for error in done if error is not None)
        raise AssertionError("\n".join(f"{name}: {why}" for name, why in failed.items())) from first


def told(error: BaseException) -> str:
    """What went wrong, also where a task group has wrapped it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(told(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
