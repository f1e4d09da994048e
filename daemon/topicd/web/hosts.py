"""Whether a request means this daemon, by the name it asks for.

Owns the answer to DNS rebinding: a stranger's web page whose name is made to lead here would be let read the pages by
the browser, as one site. Promises that such a name is refused: it needs a name that the public DNS can give, so what is
none (addresses, names without a dot, those of private networks) is known, and all others have to be set.
"""

import ipaddress
import socket
from collections.abc import Collection
from typing import Final

_PRIVATE: Final = (".localhost", ".local", ".lan", ".home", ".internal", ".home.arpa")


def is_known(host: str, names: Collection[str]) -> bool:
    """Tell whether a `Host` header may be answered.

    Args:
        host: as it was sent, with or without a port; empty where none was sent, which no browser does.
        names: those that are set.
    """
    name = _name(host)
    if "." not in name or name.endswith(_PRIVATE) or name in names or name == socket.gethostname().lower():
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _name(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):  # an IPv6 address, which has no dots of a name
        return ""
    return host.partition(":")[0].rstrip(".")
