"""A private certificate authority and what it signs, made with the openssl command.

Owns the files in a folder of its own. Promises certificates that a strict client takes when it trusts the authority,
and no other client does. Never touches what the machine trusts.
"""

import itertools
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

LIMIT_S: Final = 30.0
DAYS: Final = "2"
LOOPBACK: Final = "IP:127.0.0.1,DNS:localhost"
SETTINGS: Final = """\
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, PEM files both."""

    file: Path
    key_file: Path


class Authority:
    """An authority with a root of its own; `ca_file` is what a client is given to trust it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._numbers = itertools.count(1)
        self._root = self._made("authority", ())
        self.ca_file: Final = self._root.file

    def server(self, names: str = LOOPBACK) -> Certificate:
        """Sign a server's certificate for names such as `IP:127.0.0.1,DNS:localhost`."""
        signer = ("-CA", str(self._root.file), "-CAkey", str(self._root.key_file))
        return self._made("server", signer, names)

    def _made(self, kind: str, signer: tuple[str, ...], names: str = LOOPBACK) -> Certificate:
        stem = self._folder / f"{next(self._numbers)}-{kind}"
        settings, made = stem.with_suffix(".cnf"), Certificate(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        settings.write_text(SETTINGS.format(names=names))
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", str(made.key_file))
        about = ("-config", str(settings), "-extensions", kind, "-subj", f"/CN=topicd test {kind}", "-days", DAYS)
        command = ["openssl", "req", "-x509", *key, *about, *signer, "-out", str(made.file)]
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S)
        return made
