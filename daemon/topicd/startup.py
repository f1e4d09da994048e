"""What a start looks at in the settings before anything begins.

Owns which files must be there, and the sentences of what is set and looks wrong without being a fault. Promises that a
verb which only looks is never kept from it by a model that is not there yet. Never starts anything.
"""

from collections.abc import Iterable, Iterator

from topicd import build
from topicd.errors import Unusable
from topicd.settings import Settings

UNVERIFIED = "certificates of servers are not checked (SSL_VERIFY=false)"


def check_files(settings: Settings) -> None:
    """See that every file is there that the settings name and the daemon will need.

    Raises:
        Unusable: one is not, or is none; with one line each.
    """
    faults = [f"{name}={path}: there is no such file" for name, path in build.files(settings) if not path.is_file()]
    if faults:
        raise Unusable("settings", "\n".join(faults), hint="name a file that is there, or unset it")


def warnings(settings: Settings, misspelt: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield what is set and may not be meant, a sentence each; `misspelt` as `settings.misspelt` yields it."""
    if not settings.ssl_verify:
        yield UNVERIFIED
    for name, meant in misspelt:
        yield f"{name} is set and not used; was {meant} meant?"
