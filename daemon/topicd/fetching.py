"""The command line's verb `fetch`: a file from elsewhere into `cache/`.

Owns where a file goes and what is shown meanwhile: on a terminal one line with bar, rate and time left, elsewhere a
line now and then. Promises that Ctrl-C leaves a part which the same command goes on with. Never fetches itself:
`download.py` does.
"""

import argparse
import asyncio
import contextlib
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, TextIO
from urllib.parse import unquote, urlsplit

from topicd.errors import TopicdError
from topicd.home import Home
from topicd.progress import visible

if TYPE_CHECKING:
    from topicd.backends.files import File, Progress

OK: Final = 0
LOOK_S: Final = 0.2
LINE_S: Final = 10.0
BAR_CHARS: Final = 20
NAME_BYTES_MAX: Final = 200
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_MB: Final = 1e6

Verb = Callable[[Home, argparse.Namespace], int]


class NotFetched(TopicdError):
    """The file is not there now."""


def add(verb: Callable[[str, Verb, str], argparse.ArgumentParser]) -> None:
    """Add the verb to the command line's grammar."""
    one = verb("fetch", fetch, "\nAn interrupted one goes on where it was. Prints the file's path.")
    one.add_argument("what", choices=["url"], help="what the next word is: an address")
    one.add_argument("url", metavar="URL", help="http or https")
    one.add_argument("--sha256", metavar="HEX", type=_sha256, help="what the file must have")
    one.add_argument(
        "--to", metavar="FILE", type=Path, help="where it goes; else into cache/, by the address's last word"
    )
    one.add_argument("--quiet", action="store_true", help="show no progress")


def fetch(home: Home, args: argparse.Namespace) -> int:
    """Fetch a file, verify it, and put it in its place whole."""
    from topicd.backends.files import File  # noqa: PLC0415 - loaded where it is used

    try:
        target = args.to or home.spool.cache / _name(args.url)
        target.parent.mkdir(parents=True, exist_ok=True)
        file = File(target, [args.url], f"sha256:{args.sha256}" if args.sha256 else "")
        path = asyncio.run(_fetched(home, file, None if args.quiet else Meter(target.name)))
    except TopicdError as error:
        raise NotFetched(error.cause, error.message, hint=error.hint) from error
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)
        raise
    print(path)
    return OK


class Meter:
    """Shows how far a download is, on a stream.

    Args:
        name: of the file.
        out: the stream.
    """

    def __init__(self, name: str, out: TextIO | None = None) -> None:
        self._name = visible(name)
        self._out = out or sys.stderr
        self._begun_s = self._line_at_s = time.monotonic()
        self._note = ""
        self._is_open = False

    def show(self, told: "Progress") -> None:
        """Show it, if it is time to."""
        now_s = time.monotonic()
        if self._out.isatty():
            self._out.write(f"\r\x1b[K{self._text(told, now_s)}")
            self._is_open = True
        elif now_s - self._line_at_s >= LINE_S or (told.note and told.note != self._note):
            self._out.write(f"{self._text(told, now_s)}\n")
            self._line_at_s = now_s
        self._note = told.note
        self._out.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._is_open:
            self._out.write("\n")

    def _text(self, told: "Progress", now_s: float) -> str:
        rate = told.received / max(now_s - self._begun_s, LOOK_S)
        parts = [self._name, *_share(told), f"{rate / _MB:.1f} MB/s"]
        if told.total is not None and rate > 0:
            parts.append(f"{_clock((told.total - told.have) / rate)} left")
        return "  ".join([*parts, *([visible(told.note)] if told.note else [])])


async def _fetched(home: Home, file: "File", meter: Meter | None) -> Path:
    from topicd.backends.download import Downloads  # noqa: PLC0415 - as above
    from topicd.backends.files import Limits, Progress  # noqa: PLC0415 - as above
    from topicd.backends.trust import trust  # noqa: PLC0415 - as above

    settings = home.settings
    limits = Limits(free_bytes_min=settings.min_free_bytes)
    tls = trust(verify=settings.ssl_verify, ca_file=settings.ssl_ca_file)
    if not settings.ssl_verify:
        print("certificates of servers are not checked (SSL_VERIFY=false)", file=sys.stderr)
    told, downloads = Progress(), Downloads(tls=tls, limits=limits, durable=home.store.durable)
    watching = asyncio.create_task(_watch(told, meter)) if meter else None
    try:
        return await downloads.fetch(file, told)
    finally:
        if watching and meter:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            meter.end()
        downloads.close()


async def _watch(told: "Progress", meter: Meter) -> None:
    while True:
        meter.show(told)
        await asyncio.sleep(LOOK_S)


def _share(told: "Progress") -> list[str]:
    if not told.total:
        return [f"{told.have / _MB:.1f} MB"]
    done = told.have / told.total
    bar = "█" * round(BAR_CHARS * done)
    return [f"{bar:░<{BAR_CHARS}}", f"{100 * done:3.0f} %", f"{told.have / _MB:.1f} of {told.total / _MB:.1f} MB"]


def _clock(seconds: float) -> str:
    whole = round(min(seconds, 359_999))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def _name(url: str) -> str:
    """Return the name that an address gives a file."""
    with contextlib.suppress(ValueError):
        name = PurePosixPath(unquote(urlsplit(url).path)).name
        if name.isprintable() and name[:1] not in ("", ".") and len(name.encode()) <= NAME_BYTES_MAX:
            return name
    raise NotFetched("bad_name", "the address names no file.", hint="say with --to where it should go")


def _sha256(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise argparse.ArgumentTypeError("64 digits of 0-9a-f are wanted")
    return text.lower()
