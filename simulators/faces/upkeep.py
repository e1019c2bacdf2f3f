"""Small parts that register faces share: reboots on demand, spacing of requests, whole items of a write, phases."""

from collections.abc import Callable, Mapping

from simulators.clock import loop_s
from simulators.faces.modbus import ModbusRefused, Refusal


class Reboots:
    """Reboots a product after a number of writes; hand `wrote` to `ModbusServer.after_write`."""

    def __init__(self, reboot: Callable[[], None]) -> None:
        self._reboot = reboot
        self._left: int | None = None

    def after(self, writes: int | None) -> None:
        self._left = writes

    def wrote(self) -> bool:
        """Whether the product has just rebooted."""
        if self._left is None:
            return False
        self._left -= 1
        if self._left > 0:
            return False
        self._left = None
        self._reboot()
        return True


class Spacing:
    """Counts requests that came sooner than `minimum_s` after the one before."""

    def __init__(self, minimum_s: float) -> None:
        self.minimum_s = minimum_s
        self.violations = 0
        self._last_s: float | None = None

    def note(self) -> None:
        now_s = loop_s()
        if self._last_s is not None and now_s - self._last_s < self.minimum_s:
            self.violations += 1
        self._last_s = now_s


def thirds(value: float) -> tuple[int, int, int]:
    """Three whole numbers of about the same size whose sum is `value` rounded."""
    total = round(value)
    first = round(total / 3)
    second = round((total - first) / 2)
    return first, second, total - first - second


def whole_items(address: int, values: list[int], sizes: Mapping[int, int]) -> dict[int, int]:
    """What a write sets, unsigned and by first address; `sizes`: words of each item, most significant first.

    Raises ModbusRefused where the product has no item (ILLEGAL_ADDRESS) or for half of one (ILLEGAL_VALUE).
    """
    items: dict[int, int] = {}
    words = list(values)
    while words:
        size = sizes.get(address)
        if size is None:
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS)
        if len(words) < size:
            raise ModbusRefused(Refusal.ILLEGAL_VALUE)
        items[address] = words[0] if size == 1 else words[0] << 16 | words[1]
        address, words = address + size, words[size:]
    return items


def signed(value: int, words: int) -> int:
    """The two's complement reading of an unsigned item."""
    bits = 16 * words
    return value - (1 << bits) if value >> (bits - 1) else value
