"""Addresses of hosts."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, so that nobody is on the way to it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
