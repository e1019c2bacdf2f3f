"""Commands as MQTT messages: encoded by the product of each device."""

from collections.abc import Mapping, Sequence
from typing import Any, overload

import numpy as np

from gateway.domain.commands import CommandBatch, CommandOp
from gateway.domain.fleet.fleet import Fleet
from gateway.profiles.compile import Codec
from gateway.transports.mqtt.connection import OutMessage


def encoders(fleet: Fleet, codecs: Mapping[int, Codec], batch: CommandBatch) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Product of each command, -1 where it is none of `codecs` or lacks the operation."""
    found = fleet.nameplate.profile[batch.slots]
    for profile in np.unique(found).tolist():
        codec = codecs.get(profile)
        for op in np.unique(batch.op[found == profile]).tolist():
            if codec is None or codec.encoder is None or not codec.encoder.can(CommandOp(op)):
                found[(found == profile) & (batch.op == op)] = -1
    return found


class OutCommands(Sequence[OutMessage]):
    """Commands as messages, encoded on access: a large fan-out neither delays the loop nor fills memory. `ahead_ms`:
    how far each device's clock is ahead, by which it judges whether a command is still valid."""

    def __init__(
        self,
        fleet: Fleet,
        codecs: Mapping[int, Codec],
        batch: CommandBatch,
        index: np.ndarray[Any, Any],
        now_ms: int,
        ahead_ms: np.ndarray[Any, np.dtype[np.int64]],
    ) -> None:
        slots = batch.slots[index]
        self._ids = fleet.ids
        self._encoders = {n: codec.encoder for n, codec in codecs.items() if codec.encoder is not None}
        self._profiles = fleet.nameplate.profile[slots].tolist()
        self._slots = slots.tolist()
        self._op = batch.op[index].tolist()
        self._setpoint_w = batch.setpoint_w[index].tolist()
        self._lease_s = batch.lease_s[index].tolist()
        self._reserve_pct = batch.reserve_pct[index].tolist()
        self._cmd = batch.cmd[index].tolist()
        self._valid_until_ms = (batch.valid_until_ms[index] + ahead_ms).tolist()
        self._expiry_s = (-((now_ms - batch.valid_until_ms[index]) // 1000)).tolist()

    def __len__(self) -> int:
        return len(self._slots)

    @overload
    def __getitem__(self, at: int) -> OutMessage: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[OutMessage]: ...

    def __getitem__(self, at: int | slice) -> OutMessage | Sequence[OutMessage]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        encoder = self._encoders[self._profiles[at]]
        device = self._ids[self._slots[at]]
        payload = encoder.encode(
            self._op[at],
            device,
            self._cmd[at],
            self._valid_until_ms[at],
            setpoint_w=self._setpoint_w[at],
            lease_s=self._lease_s[at],
            reserve_pct=self._reserve_pct[at],
        )
        return OutMessage(encoder.route.topic(device), payload, 1, False, self._expiry_s[at])
