"""A peer that plays broker for one client and is never the limit: pre-encoded packets out, acknowledgements counted.

Two parts: `blast` sends QoS 1 telemetry to a subscriber within its receive maximum; `sink` takes publishes and
acknowledges each. Frames are taken apart by hand here: it shares no code with what it measures.
"""

import argparse
import os
import select
import socket
import struct
import sys
import time

import orjson

CONNACK = bytes([0x20, 0x06, 0x00, 0x00, 0x03, 0x21, 0xFF, 0xFF])
WINDOW_DEFAULT = 10_000
PACED_MS = 1
DEVICE = "home-{:06d}"
FIRST_BOOT = 100
BOOT = b'"boot":%d,' % FIRST_BOOT


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def telemetry(device: int, seq: int, t_ms: int) -> bytes:
    """An energy message of about 250 bytes and 16 fields."""
    return orjson.dumps(
        {
            "id": DEVICE.format(device),
            "boot": FIRST_BOOT,
            "seq": seq,
            "t": t_ms,
            "span_ms": 10000,
            "charge_counter_wh": 184_220.5 + seq,
            "discharge_counter_wh": 152_331.25 + seq * 2,
            "charge_wh": None,
            "discharge_wh": None,
            "battery_w": 1250.5 + device % 100,
            "soc_pct": 55.0,
            "grid_w": -120.5,
            "pv_w": 300.0,
            "load_w": 1430.0,
            "temp_c": 25.5,
            "faults": 0,
        }
    )


def publishes(devices: int, messages: int, *, t_ms: int, step_ms: int) -> list[bytes]:
    """Packets without their packet ids filled in: (head, tail) joined around the id by the sender."""
    out: list[bytes] = []
    for i in range(messages):
        device, round_ = i % devices, i // devices
        topic = f"gateway/v1/devices/{DEVICE.format(device)}/energy".encode()
        payload = telemetry(device, round_ + 1, t_ms + round_ * step_ms)
        body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", i % 65_535 + 1) + b"\x00" + payload
        out.append(b"\x32" + varint(len(body)) + body)
    return out


def frames(buffer: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Whole packets as (first byte, body), and the rest."""
    out: list[tuple[int, bytes]] = []
    at = 0
    while len(buffer) - at >= 2:
        length, shift, i = 0, 0, at + 1
        while i < len(buffer):
            length |= (buffer[i] & 0x7F) << shift
            shift += 7
            i += 1
            if not buffer[i - 1] & 0x80:
                break
        else:
            break
        if len(buffer) < i + length:
            break
        out.append((buffer[at], buffer[i : i + length]))
        at = i + length
    return out, buffer[at:]


class Client:
    """One accepted connection: greets, grants subscriptions, takes publishes; never blocks on a slow reader."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.out = bytearray()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)

    def read(self) -> bytes:
        """What is unread, at its end only part of a packet."""
        chunk = self.sock.recv(1 << 20)
        if not chunk:
            raise ConnectionError
        return self.rest + chunk if self.rest else chunk

    def flush(self) -> None:
        if self.out:
            try:
                del self.out[: self.sock.send(self.out)]
            except BlockingIOError:
                return

    def greet(self, kind: int, body: bytes) -> bool:
        """Answer a housekeeping packet; whether it subscribed to settlement telemetry."""
        if kind == 0x10:
            self.out += CONNACK
        elif kind == 0x82:
            filters = 0
            at = 3 + body[2]
            while at < len(body):
                at += 3 + struct.unpack(">H", body[at : at + 2])[0]
                filters += 1
            self.out += b"\x90" + varint(3 + filters) + body[:2] + b"\x00" + b"\x01" * filters
            return b"energy" in body
        elif kind == 0xC0:
            self.out += b"\xd0\x00"
        elif kind == 0xE0:
            raise ConnectionError
        return False


def acknowledgements(buffer: bytes) -> tuple[bytes, int]:
    """PUBACKs for the QoS 1 publishes that `buffer` begins with, and where it goes on."""
    out = bytearray()
    at, end = 0, len(buffer)
    while end - at >= 5 and buffer[at] & 0xF6 == 0x32:
        length, i = buffer[at + 1], at + 2
        if length & 0x80:
            length = (length & 0x7F) | buffer[i] << 7
            i += 1
            if length & 0x4000:
                break
        stop = i + length
        if stop > end:
            break
        i += 2 + (buffer[i] << 8 | buffer[i + 1])
        out += b"\x40\x02" + buffer[i : i + 2]
        at = stop
    return bytes(out), at


class Peer:
    """Serves any number of clients; blasts to those that subscribe energy, acknowledges what others publish."""

    def __init__(
        self, listener: socket.socket, packets: list[bytes], window: int, *, again: bool, per_s: int = 0
    ) -> None:
        self.listener = listener
        self.packets = packets
        self.window = window
        self.again = again
        self.per_s = per_s
        self.began: dict[int, float] = {}
        self.clients: dict[int, Client] = {}
        self.sent: dict[int, int] = {}
        self.acked: dict[int, int] = {}
        self.poll = select.poll()
        self.poll.register(listener, select.POLLIN)

    def serve(self, *, deadline: float) -> None:
        while time.monotonic() < deadline:
            for fd, events in self.poll.poll(0 if self._may_send() else PACED_MS if self.per_s else 200):
                if fd == self.listener.fileno():
                    sock, _address = self.listener.accept()
                    self.clients[sock.fileno()] = Client(sock)
                    self.poll.register(sock, select.POLLIN)
                    continue
                try:
                    if events & ~select.POLLOUT:
                        self._take(fd)
                    self._flush(fd)
                except (ConnectionError, OSError):
                    self._drop(fd)
            for fd in list(self.sent):
                try:
                    self._send(fd)
                except OSError:
                    self._drop(fd)
            if os.getppid() == 1:
                return

    def _room(self, fd: int) -> int:
        """How many packets may be sent now: none while the last ones are not written."""
        if self.clients[fd].out or not self.packets:
            return 0
        sent, size = self.sent[fd], len(self.packets)
        left = size - sent % size if self.again else size - sent
        room = min(self.window - (sent - self.acked[fd]), left, 500)
        if self.per_s:
            room = min(room, int((time.monotonic() - self.began[fd]) * self.per_s) - sent)
        return room

    def _may_send(self) -> bool:
        return any(self._room(fd) > 0 for fd in self.sent)

    def _flush(self, fd: int) -> None:
        client = self.clients[fd]
        client.flush()
        self.poll.modify(fd, select.POLLIN | select.POLLOUT if client.out else select.POLLIN)

    def _drop(self, fd: int) -> None:
        self.poll.unregister(fd)
        self.clients.pop(fd).sock.close()
        self.sent.pop(fd, None)
        self.acked.pop(fd, None)

    def _take(self, fd: int) -> None:
        client = self.clients[fd]
        buffer = client.read()
        acks, at = acknowledgements(buffer)
        client.out += acks
        if buffer[at : at + 1] == b"\x40":
            whole = buffer[at : at + (len(buffer) - at) // 4 * 4]
            if whole[::4] == b"\x40" * (len(whole) // 4) and whole[1::4] == b"\x02" * (len(whole) // 4):
                self.acked[fd] = self.acked.get(fd, 0) + len(whole) // 4
                at += len(whole)
        found, client.rest = frames(buffer[at:])
        for kind, body in found:
            if kind == 0x40:
                self.acked[fd] = self.acked.get(fd, 0) + 1
            elif kind & 0xF6 == 0x32:
                topic = struct.unpack(">H", body[:2])[0]
                client.out += b"\x40\x02" + body[2 + topic : 4 + topic]
            elif client.greet(kind, body):
                self.sent[fd] = self.acked[fd] = 0
                self.began[fd] = time.monotonic()

    def _send(self, fd: int) -> None:
        room = self._room(fd)
        if room > 0:
            round_, at = divmod(self.sent[fd], len(self.packets))
            chunk = b"".join(self.packets[at : at + room])
            # Started over as after a boot, so that every message counts.
            self.clients[fd].out += chunk.replace(BOOT, b'"boot":%d,' % (FIRST_BOOT + round_)) if round_ else chunk
            self.sent[fd] += room
            self._flush(fd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--window", type=int, default=WINDOW_DEFAULT)
    parser.add_argument("--again", action="store_true", help="start over, with the next boot, without end")
    parser.add_argument("--t-ms", type=int, default=0)
    parser.add_argument("--step-ms", type=int, default=10_000)
    parser.add_argument("--per-s", type=int, default=0, help="so many messages a second, not as many as go")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--cpu", type=int, default=-1)
    args = parser.parse_args()
    if args.cpu >= 0:
        os.sched_setaffinity(0, {args.cpu})
    packets = publishes(args.devices, args.messages, t_ms=args.t_ms, step_ms=args.step_ms)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        Peer(listener, packets, args.window, again=args.again, per_s=args.per_s).serve(
            deadline=time.monotonic() + args.seconds
        )


if __name__ == "__main__":
    main()
