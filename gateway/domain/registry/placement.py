"""At which site, behind which meter and where a device was, from when until when."""

from dataclasses import dataclass

from gateway.domain.registry.validity import Validity
from gateway.domain.types import DeviceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A device has one open placement at most: another site, meter, postcode, county or utility closes it and opens the
    next. `meter`: the id that its utility knows the meter by; "" = not known, of each."""

    device: DeviceId
    site: str
    valid: Validity
    meter: str = ""
    postcode: str = ""
    county: str = ""
    utility: str = ""
