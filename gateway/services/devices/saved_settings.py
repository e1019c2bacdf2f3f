"""The settings of one device from before we touched them: in the journal until the device has its own again."""

import logging
from collections.abc import Mapping, MutableMapping, Sequence

from gateway.domain.errors import StorageError
from gateway.domain.journal.changes import PriorRestored, PriorSaved, Setting
from gateway.domain.types import DeviceId
from gateway.ports.journal import Journal
from gateway.profiles.compiled.points import Read, Value
from gateway.profiles.compiled.sequences import PointWrite, owners_choice, shows
from gateway.profiles.compiled.variant import ProductVariant
from gateway.profiles.language.control import Step
from gateway.services.devices.identity import Again, Serial

log = logging.getLogger(__name__)


class SavedSettings:
    """Keeps them. `prior` is what the journal has, by device, kept up to date here: with them, by the name of its
    point, the serial number of the battery whose settings they are, where it tells one."""

    def __init__(
        self, device: DeviceId, *, prior: MutableMapping[DeviceId, Mapping[str, Setting]], journal: Journal
    ) -> None:
        self._device = device
        self._prior = prior
        self._journal = journal
        self._owed: PriorRestored | None = None
        self._serial: Serial | None = None

    async def meet(self, serial: Serial | None, again: Again) -> None:
        """What answers is the battery with this number (None: it tells none). Settings of another one are dropped, once
        it has said so twice: one reading may be torn, or the answer of another unit."""
        if self._of_another(serial):
            second = await again()
            serial = second if second == serial or not self._of_another(second) else None
        self._serial = serial
        if serial is not None and self._of_another(serial):
            log.warning(
                "another battery answers, settings saved from the one before are not restored",
                extra={"device": self._device, "serial": serial.told, "saved": (self.kept or {})[serial.point]},
            )
            await self.forget()

    def _of_another(self, serial: Serial | None) -> bool:
        """Whether what is saved is another battery's than the one with this number."""
        known = None if serial is None else (self.kept or {}).get(serial.point)
        return serial is not None and known not in (None, serial.told)

    @property
    def kept(self) -> Mapping[str, Setting] | None:
        """Settings from before the episode; None while there is none."""
        return self._prior.get(self._device)

    async def save(self, settings: Mapping[str, Setting]) -> str:
        """Make them durable before the first write; returns "" or the reason why that cannot be."""
        if settings and self._serial is not None:
            settings = {**settings, self._serial.point: self._serial.told}
        try:
            await self._journal.commit([PriorSaved(device=self._device, settings=settings)])
        except StorageError as error:
            return f"the journal: {error}"
        self._prior[self._device] = settings
        return ""

    async def forget(self) -> None:
        """Clear the saved settings: the device has its own again."""
        if self.kept is not None:
            await self._tell(PriorRestored(device=self._device, seq=self._journal.sequence()))
        self._prior.pop(self._device, None)

    async def settle(self) -> None:
        """Clear from the journal what the disk refused to."""
        if self._owed is not None:
            await self._tell(self._owed)

    async def _tell(self, restored: PriorRestored) -> None:
        """Clear them from the journal, now or, where the disk refuses, as soon as it does not. Until then a restart
        would restore them once more, whatever the owner has chosen meanwhile."""
        try:
            await self._journal.commit([restored])
        except StorageError as error:
            if self._owed is None:
                log.warning(
                    "saved settings could not be cleared from the journal",
                    extra={"device": self._device, "error": str(error)},
                )
            self._owed = restored
            return
        self._owed = None


def owners_settings(
    names: Sequence[str], found: Mapping[str, Read], values: Mapping[str, Value], variant: ProductVariant
) -> tuple[dict[str, Setting], str]:
    """Which of these points, `found` now, show an owner's setting; and why one could not be restored: it can be neither
    read nor given another way."""
    control = variant.control
    release = control.release if control is not None else ()
    given = {part.restore for step in release for part in (step.together or (step,)) if part.or_value is not None}
    settings = {
        name: value
        for name in names
        if (value := values.get(name)) is not None and not (name in given and _is_ours(name, value, variant))
    }
    for name in names:
        if name not in settings and name not in given:
            known = variant.codecs[name].number(found.get(name))
            shown = "cannot be read" if known is None else f"is {known:g}, which is none of the values known"
            return settings, f"{name} {shown}, so it could not be restored"
    return settings, ""


def choices(
    saved: Mapping[str, Setting],
    written: Mapping[str, PointWrite],
    values: Mapping[str, Value],
    variant: ProductVariant,
) -> dict[str, Value]:
    """What somebody has set since: a setting, or bits of one, that no longer shows what was `written` stays theirs."""
    return {
        name: owners_choice(saved[name], now, ours)
        for name, ours in written.items()
        if (now := values.get(name)) is not None and not shows(variant.codecs[name], values, ours)
    }


def _is_ours(name: str, value: Value, variant: ProductVariant) -> bool:
    """Whether control itself sets a point to `value`: what an episode left, or the device still shows of it, is not an
    owner's setting."""
    control = variant.control
    sequences = (control.begin, control.discharge, control.charge, control.hold) if control is not None else ()
    parts = [part for steps in sequences for step in steps for part in (step.together or (step,))]
    return any(part.write == name and part.value is not None and _gives(part, value) for part in parts)


def _gives(part: Step, value: Value) -> bool:
    if part.bits is None or not isinstance(value, float):
        return part.value == value
    return int(value) & part.bits == part.value
