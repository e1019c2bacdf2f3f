"""Encodes requests and decodes their answers by pymodbus' codec; an answer counts only for its own request.

A PDU is the function code and its data, without the MBAP header.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ExceptionResponse
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    ReadInputRegistersRequest,
    ReadInputRegistersResponse,
    WriteMultipleRegistersRequest,
    WriteMultipleRegistersResponse,
    WriteSingleRegisterRequest,
    WriteSingleRegisterResponse,
)

from gateway.domain.errors import ProtocolViolation, invariant

WRITE_ONE = 6
WRITE_MANY = 16
WRITES = (WRITE_ONE, WRITE_MANY)
WORDS_MAX = 123
_READ_REQUESTS = {3: ReadHoldingRegistersRequest, 4: ReadInputRegistersRequest}
_READ_ANSWERS = {3: ReadHoldingRegistersResponse, 4: ReadInputRegistersResponse}
_EXCEPTION = 0x80
_ECHO = 5

Words = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ExceptionReply:
    """The device answered with this exception code."""

    code: int


def read_request(function: int, address: int, count: int) -> bytes:
    """Read `count` registers by function 3 or 4."""
    pdu = _READ_REQUESTS[function](address=address, count=count)
    return bytes((function,)) + pdu.encode()


def write_request(function: int, address: int, words: Sequence[int]) -> bytes:
    """Write one register (6) or several (16)."""
    invariant(1 <= len(words) <= (1 if function == WRITE_ONE else WORDS_MAX), "a request has as many words as it may")
    kind = WriteSingleRegisterRequest if function == WRITE_ONE else WriteMultipleRegistersRequest
    return bytes((function,)) + kind(address=address, registers=list(words)).encode()


def answer(request: bytes, reply: bytes, *, loose_writes: bool = False) -> Words | ExceptionReply:
    """The words read (none for a write), or the refusal. Raises ProtocolViolation for anything else. `loose_writes`:
    check only the function of a write's confirmation."""
    function = request[0]
    if loose_writes and function in WRITES and reply[:1] == request[:1]:
        return ()
    try:
        if reply[0] == function:
            return _confirmed(request, reply) if function in WRITES else _words(request, reply)
        if reply[0] == function | _EXCEPTION and len(reply) == 2:
            refused = ExceptionResponse(function)
            refused.decode(reply[1:])
            return ExceptionReply(refused.exception_code)
    except (ModbusException, struct.error, IndexError, ValueError) as error:
        raise ProtocolViolation(f"function {function} was answered with a malformed reply") from error
    raise ProtocolViolation(f"function {function} was answered with function {reply[0]} in {len(reply)} bytes")


def _words(request: bytes, reply: bytes) -> Words:
    size = 2 * int.from_bytes(request[3:5], "big")
    if len(reply) != 2 + size or reply[1] != size:
        raise ProtocolViolation(f"{size // 2} registers were asked for, {len(reply) - 2} bytes came")
    response = _READ_ANSWERS[request[0]]()
    response.decode(reply[1:])
    return tuple(response.registers)


def _confirmed(request: bytes, reply: bytes) -> Words:
    """Devices answer both writes with the first five bytes of the request."""
    response = WriteSingleRegisterResponse() if request[0] == WRITE_ONE else WriteMultipleRegistersResponse()
    response.decode(reply[1:])
    if reply != request[:_ECHO]:
        raise ProtocolViolation(f"a write to register {int.from_bytes(request[1:3], 'big')} was answered for another")
    return ()
