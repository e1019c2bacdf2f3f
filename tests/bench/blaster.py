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
DEVICE = "home-{:06d}"


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
            "boot": 1,
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
    """One accepted connection: greets, grants subscriptions, tells whether this one subscribed."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.rest = b""
        self.subscribed = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self) -> list[tuple[int, bytes]]:
        chunk = self.sock.recv(1 << 20)
        if not chunk:
            raise ConnectionError
        found, self.rest = frames(self.rest + chunk)
        return found

    def greet(self, kind: int, body: bytes) -> bool:
        """Answer a housekeeping packet; False if it was none."""
        if kind == 0x10:
            self.sock.sendall(CONNACK)
        elif kind == 0x82:
            filters = 0
            at = 3 + body[2]
            while at < len(body):
                at += 3 + struct.unpack(">H", body[at : at + 2])[0]
                filters += 1
            self.subscribed = body
            self.sock.sendall(b"\x90" + varint(3 + filters) + body[:2] + b"\x00" + b"\x01" * filters)
        elif kind == 0xC0:
            self.sock.sendall(b"\xd0\x00")
        elif kind == 0xE0:
            raise ConnectionError
        else:
            return False
        return True


class Peer:
    """Serves any number of clients; blasts to those that subscribe energy, acknowledges what others publish."""

    def __init__(self, listener: socket.socket, packets: list[bytes], window: int, *, again: bool) -> None:
        self.listener = listener
        self.packets = packets
        self.window = window
        self.again = again
        self.clients: dict[int, Client] = {}
        self.sent: dict[int, int] = {}
        self.acked: dict[int, int] = {}
        self.poll = select.poll()
        self.poll.register(listener, select.POLLIN)

    def serve(self, *, deadline: float) -> None:
        while time.monotonic() < deadline:
            for fd, _ in self.poll.poll(0 if self._may_send() else 200):
                if fd == self.listener.fileno():
                    sock, _address = self.listener.accept()
                    self.clients[sock.fileno()] = Client(sock)
                    self.poll.register(sock, select.POLLIN)
                    continue
                try:
                    self._take(fd)
                except (ConnectionError, OSError):
                    self._drop(fd)
            for fd in list(self.sent):
                self._send(fd)
            if os.getppid() == 1:
                return

    def _may_send(self) -> bool:
        return any(
            self.sent[fd] < len(self.packets) and self.sent[fd] - self.acked[fd] < self.window for fd in self.sent
        )

    def _drop(self, fd: int) -> None:
        self.poll.unregister(fd)
        self.clients.pop(fd).sock.close()
        self.sent.pop(fd, None)
        self.acked.pop(fd, None)

    def _take(self, fd: int) -> None:
        client = self.clients[fd]
        out = bytearray()
        for kind, body in client.read():
            if kind == 0x40:
                self.acked[fd] = self.acked.get(fd, 0) + 1
                if self.acked[fd] == len(self.packets) and self.again:
                    self.sent[fd] = self.acked[fd] = 0
            elif kind & 0xF6 == 0x32:
                topic = struct.unpack(">H", body[:2])[0]
                out += b"\x40\x02" + body[2 + topic : 4 + topic]
            elif client.greet(kind, body) and kind == 0x82 and b"energy" in body:
                self.sent[fd] = self.acked[fd] = 0
        if out:
            client.sock.setblocking(True)
            client.sock.sendall(out)

    def _send(self, fd: int) -> None:
        sent = self.sent[fd]
        room = min(self.window - (sent - self.acked[fd]), len(self.packets) - sent, 500)
        if room > 0:
            try:
                self.clients[fd].sock.sendall(b"".join(self.packets[sent : sent + room]))
            except OSError:
                self._drop(fd)
                return
            self.sent[fd] = sent + room


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=0)
    parser.add_argument("--window", type=int, default=WINDOW_DEFAULT)
    parser.add_argument("--again", action="store_true", help="start over when everything is acknowledged")
    parser.add_argument("--t-ms", type=int, default=0)
    parser.add_argument("--step-ms", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--cpu", type=int, default=-1)
    args = parser.parse_args()
    if args.cpu >= 0:
        os.sched_setaffinity(0, {args.cpu})
    packets = publishes(args.devices, args.messages, t_ms=args.t_ms, step_ms=args.step_ms)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        Peer(listener, packets, args.window, again=args.again).serve(deadline=time.monotonic() + args.seconds)


if __name__ == "__main__":
    main()
