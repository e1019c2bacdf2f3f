"""A Modbus TCP server by hand (MBAP framing, functions 3, 4, 6, 16), so that it shares no mistake with a library.

Wire: transaction u16, protocol u16 = 0, length u16, unit u8, then function u8 and its data; all big-endian.
Source: MODBUS Application Protocol 1.1b3, Messaging on TCP/IP 1.0b.
"""

import asyncio
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from simulators.faces.plant import Trouble

READ_MAX = 125
WRITE_MAX = 123
FRAME_MAX = 260


class Refusal(IntEnum):
    """Exception codes a device answers with."""

    ILLEGAL_FUNCTION = 1
    ILLEGAL_ADDRESS = 2
    ILLEGAL_VALUE = 3
    DEVICE_FAILURE = 4
    BUSY = 6
    NO_PATH = 10
    NO_TARGET = 11
    PERMISSION = 0x80


class ModbusRefused(Exception):
    """The device's own no."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exception {code}")
        self.code = code


class Registers:
    """A sparse image of 16-bit registers with typed access. `little` = least significant word first."""

    def __init__(self, *, little: bool = False) -> None:
        self.words: dict[int, int] = {}
        self.little = little

    def _put(self, address: int, data: bytes, little: bool | None) -> None:
        words = list(struct.unpack(f">{len(data) // 2}H", data))
        if self.little if little is None else little:
            words.reverse()
        for i, word in enumerate(words):
            self.words[address + i] = word

    def _get(self, address: int, count: int, little: bool | None) -> bytes:
        words = [self.words[address + i] for i in range(count)]
        if self.little if little is None else little:
            words.reverse()
        return struct.pack(f">{count}H", *words)

    def u16(self, address: int, value: float) -> None:
        self.words[address] = min(max(round(value), 0), 0xFFFF)

    def i16(self, address: int, value: float) -> None:
        self.words[address] = min(max(round(value), -0x8000), 0x7FFF) & 0xFFFF

    def u32(self, address: int, value: float, *, little: bool | None = None) -> None:
        self._put(address, struct.pack(">I", min(max(round(value), 0), 0xFFFFFFFF)), little)

    def i32(self, address: int, value: float, *, little: bool | None = None) -> None:
        self._put(address, struct.pack(">i", min(max(round(value), -0x80000000), 0x7FFFFFFF)), little)

    def u64(self, address: int, value: float, *, little: bool | None = None) -> None:
        self._put(address, struct.pack(">Q", max(round(value), 0)), little)

    def f32(self, address: int, value: float, *, little: bool | None = None) -> None:
        self._put(address, struct.pack(">f", value), little)

    def text(self, address: int, value: str, words: int) -> None:
        """ASCII, two characters a word, padded with NUL; never word-swapped."""
        self._put(address, value.encode("ascii")[: 2 * words].ljust(2 * words, b"\0"), False)

    def get_u16(self, address: int) -> int:
        return self.words[address]

    def get_i16(self, address: int) -> int:
        return int(struct.unpack(">h", self._get(address, 1, False))[0])

    def get_u32(self, address: int, *, little: bool | None = None) -> int:
        return int(struct.unpack(">I", self._get(address, 2, little))[0])

    def get_i32(self, address: int, *, little: bool | None = None) -> int:
        return int(struct.unpack(">i", self._get(address, 2, little))[0])

    def get_f32(self, address: int, *, little: bool | None = None) -> float:
        return float(struct.unpack(">f", self._get(address, 2, little))[0])

    def block(self, address: int, count: int) -> list[int]:
        """Consecutive words. Raises ModbusRefused(ILLEGAL_ADDRESS) where the device has none."""
        try:
            return [self.words[a] for a in range(address, address + count)]
        except KeyError:
            raise ModbusRefused(Refusal.ILLEGAL_ADDRESS) from None


class RegisterDevice(Protocol):
    """What stands behind the server. Both raise ModbusRefused."""

    trouble: Trouble
    late_s: float

    def read(self, unit: int, function: int, address: int, count: int) -> list[int]:
        """Registers by function 3 (holding) or 4 (input)."""
        ...

    def write(self, unit: int, function: int, address: int, values: list[int]) -> None:
        """Write by function 6 (one value) or 16."""
        ...


class ModbusServer:
    """Serves one device (which may answer to several unit ids).

    `clients_max`: further clients are accepted and closed at once. `rest_s`: the device answers nothing for so long
    after a client connected. `quiet_units`: units whose writes are carried out and not answered (broadcast).
    `reopen_s`: clients are refused for so long after one left. `idle_s`: a silent connection is cut after so long.
    `refusal`, `busy`: the exceptions of a device that takes no write, and of one that is busy.
    """

    def __init__(
        self,
        device: RegisterDevice,
        *,
        clients_max: int | None = None,
        rest_s: float = 0.0,
        read_max: int = READ_MAX,
        quiet_units: tuple[int, ...] = (0,),
        reopen_s: float = 0.0,
        idle_s: float | None = None,
        refusal: Refusal = Refusal.ILLEGAL_VALUE,
        busy: Refusal = Refusal.BUSY,
    ) -> None:
        self._device = device
        self._clients_max = clients_max
        self._rest_s = rest_s
        self._read_max = read_max
        self._quiet_units = quiet_units
        self._reopen_s = reopen_s
        self._idle_s = idle_s
        self._refusal = refusal
        self._busy = busy
        self._shut_until_s = 0.0
        self._server: asyncio.Server | None = None
        self._writers: dict[asyncio.StreamWriter, None] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self.requests: list[tuple[int, int, int, int]] = []
        self.refused_clients = 0
        self.after_write: Callable[[], bool] | None = None

    async def start(self, *, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen; returns the port."""
        self._stopping.clear()
        self._server = await asyncio.start_server(self._serve, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._stopping.set()
            self.drop_all()
            await self._server.wait_closed()
            if self._serving:
                await asyncio.wait(self._serving, timeout=5)
            self._server = None

    def drop_all(self) -> None:
        """Cut every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        full = self._clients_max is not None and len(self._writers) >= self._clients_max
        loop = asyncio.get_running_loop()
        if full or loop.time() < self._shut_until_s:
            self.refused_clients += 1
            writer.close()
            return
        self._writers[writer] = None
        if task := asyncio.current_task():
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)
        try:
            if self._rest_s:
                await self._pause(self._rest_s)
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            pass
        finally:
            self._writers.pop(writer, None)
            self._shut_until_s = loop.time() + self._reopen_s
            writer.close()

    async def _pause(self, s: float) -> None:
        """Sleep, but not beyond `stop`."""
        try:
            await asyncio.wait_for(self._stopping.wait(), s)
        except TimeoutError:
            return

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(self._idle_s):
            head = await reader.readexactly(7)
        transaction, protocol, length, unit = struct.unpack(">HHHB", head)
        if protocol != 0 or not 2 <= length <= FRAME_MAX - 6:
            return False
        body = await reader.readexactly(length - 1)
        trouble = self._device.trouble
        if trouble is Trouble.SILENT:
            return True
        if trouble is Trouble.DISCONNECT:
            return False
        if trouble is Trouble.GARBAGE:
            writer.write(bytes((0xDE, 0xAD) * 9))
            return True
        answer = self._answer(unit, body)
        if answer is None:
            return False
        if unit in self._quiet_units and body[0] in (6, 16):
            return True
        if trouble is Trouble.LATE:
            await self._pause(self._device.late_s)
        writer.write(struct.pack(">HHHB", transaction, 0, len(answer) + 1, unit) + answer)
        return True

    def _answer(self, unit: int, body: bytes) -> bytes | None:
        """The answer's function and data; None = the device went away."""
        function = body[0]
        try:
            if function in (3, 4):
                address, count = struct.unpack(">HH", body[1:5])
                self.requests.append((unit, function, address, count))
                if not 1 <= count <= self._read_max:
                    raise ModbusRefused(Refusal.ILLEGAL_VALUE)
                if self._device.trouble is Trouble.BUSY:
                    raise ModbusRefused(self._busy)
                words = self._device.read(unit, function, address, count)
                return struct.pack(f">BB{count}H", function, 2 * count, *words)
            if function == 6:
                address, value = struct.unpack(">HH", body[1:5])
                return self._write(unit, function, address, [value], body[:5])
            if function == 16:
                address, count, size = struct.unpack(">HHB", body[1:6])
                if not 1 <= count <= WRITE_MAX or size != 2 * count or len(body) != 6 + size:
                    raise ModbusRefused(Refusal.ILLEGAL_VALUE)
                values = list(struct.unpack(f">{count}H", body[6:]))
                return self._write(unit, function, address, values, body[:5])
            raise ModbusRefused(Refusal.ILLEGAL_FUNCTION)
        except ModbusRefused as refused:
            return struct.pack(">BB", function | 0x80, refused.code)
        except struct.error:
            return struct.pack(">BB", function | 0x80, Refusal.ILLEGAL_VALUE)

    def _write(self, unit: int, function: int, address: int, values: list[int], answer: bytes) -> bytes | None:
        self.requests.append((unit, function, address, len(values)))
        if self._device.trouble is Trouble.BUSY:
            raise ModbusRefused(self._busy)
        if self._device.trouble is Trouble.REFUSE:
            raise ModbusRefused(self._refusal)
        self._device.write(unit, function, address, values)
        if self.after_write is not None and self.after_write():
            return None
        return answer
