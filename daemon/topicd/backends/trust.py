"""Which certificates are trusted, for whoever speaks with a server.

Owns the one place where checking can be turned off. Promises the system's roots, and the owner's own authority beside
them. Never decides that: the settings do.
"""

import ssl
from pathlib import Path

from topicd.errors import Unusable


def trust(*, verify: bool, ca_file: Path | None) -> ssl.SSLContext:
    """Return what a client is made with.

    Args:
        verify: whether certificates are checked.
        ca_file: PEM file of further authorities.

    Raises:
        Unusable: the CA file cannot be used.
    """
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if ca_file is not None:
        try:
            context.load_verify_locations(cafile=ca_file)
        except OSError as error:
            message = f"the CA file {ca_file} cannot be read as PEM."
            raise Unusable("ca_file", message, hint="check SSL_CA_FILE") from error
    return context
