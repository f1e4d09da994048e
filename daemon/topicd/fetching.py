"""The command line's verb `fetch`: files, voices and models from elsewhere into `cache/`.

Owns where each goes, and the words when one does not come. Promises that Ctrl-C leaves parts which the same command
goes on with, and that one file that does not come keeps no other from coming. Never fetches itself: `download.py` does.
"""

import argparse
import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from topicd.errors import TopicdError
from topicd.home import Home
from topicd.meter import LOOK_S, Meter
from topicd.progress import visible

if TYPE_CHECKING:
    from topicd.backends.catalogue import Voice
    from topicd.backends.download import Downloads
    from topicd.backends.files import File, Progress
    from topicd.backends.voices import Voices

OK: Final = 0
FAILED: Final = 1
NAME_BYTES_MAX: Final = 200
AT_ONCE: Final = 2
AT_ONCE_MAX: Final = 16
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_MB: Final = 1e6

Verb = Callable[[Home, argparse.Namespace], int]
Fetch = Callable[["Progress"], Coroutine[None, None, Path]]


class NotFetched(TopicdError):
    """A file is not there now."""


def add(verb: Callable[[str, Verb, str], argparse.ArgumentParser]) -> None:
    """Add the verb to the command line's grammar."""
    one = verb("fetch", fetch, "\nAn interrupted one goes on where it was. Prints each file's path.")
    whats = one.add_subparsers(required=True, metavar="WHAT", title="what", help="what to list or fetch")

    def what(name: str, function: Verb) -> argparse.ArgumentParser:
        text = (function.__doc__ or "").rstrip(".")
        added = whats.add_parser(name, help=text, description=f"{text}.")
        added.set_defaults(fetch=function)
        return added

    each = what("voices", list_voices)
    each.add_argument("--language", metavar="TAG", default="", help="such as pt-BR, or pt for all its kinds")
    each.add_argument("--json", action="store_true", help="as JSON, with sizes in bytes")
    each = what("voice", fetch_voices)
    each.add_argument("names", metavar="NAME", nargs="+", help="such as pt_BR-faber-medium; `fetch voices` lists them")
    _showing(each)
    what("models", list_models).add_argument("--json", action="store_true", help="as JSON, with sizes in bytes")
    each = what("model", fetch_models)
    each.add_argument("names", metavar="NAME", nargs="+", help="`fetch models` lists them")
    each.add_argument("--to", metavar="FOLDER", type=Path, help="where it goes; else into cache/models/")
    _showing(each)
    each = what("url", fetch_urls)
    each.add_argument("urls", metavar="URL", nargs="+", help="http or https; each is a file of its own")
    each.add_argument("--sha256", metavar="HEX", type=_sha256, help="what the file must have; for one URL")
    each.add_argument(
        "--mirror", metavar="URL", action="append", default=[], help="the same file elsewhere; wants --sha256"
    )
    each.add_argument(
        "--to", metavar="FILE", type=Path, help="where it goes, for one URL; else into cache/, by its name"
    )
    _showing(each)


def _showing(added: argparse.ArgumentParser) -> None:
    added.add_argument("--at-once", metavar="N", type=_at_once, default=AT_ONCE, help=f"else {AT_ONCE} at a time")
    added.add_argument("--quiet", action="store_true", help="show no progress")


def fetch(home: Home, args: argparse.Namespace) -> int:
    """Fetch voices, models or any file, verify them, and put them in their places whole."""
    try:
        return int(args.fetch(home, args))
    except NotFetched:
        raise
    except TopicdError as error:
        raise NotFetched(error.cause, error.message, hint=error.hint) from error
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)
        raise


def list_voices(home: Home, args: argparse.Namespace) -> int:
    """List the voices that can be fetched."""
    with contextlib.closing(_downloads(home, 1)) as downloads:
        voices = _voices(home, downloads)
        known = asyncio.run(voices.listed())
    wanted = [voice for _, voice in sorted(known.items()) if _speaks(voice, args.language)]
    if args.json:
        rows = [asdict(each) | {"size_bytes": each.size_bytes, "is_here": voices.has(each.name)} for each in wanted]
        print(json.dumps(rows, indent=1))
        return OK
    if not wanted:
        tags = ", ".join(sorted({voice.language for voice in known.values()}))
        raise NotFetched("no_voice", f"no voice speaks {args.language[:40]!r}.", hint=f"there are: {tags}")
    for voice in wanted:
        mark = "  here" if voices.has(voice.name) else ""
        print(f"{voice.name:<40}{voice.language:<10}{voice.size_bytes / _MB:7.1f} MB{mark}")
    return OK


def fetch_voices(home: Home, args: argparse.Namespace) -> int:
    """Fetch Piper's voices by their names; a topic asks for one by `voice:`."""
    with contextlib.closing(_downloads(home, args.at_once)) as downloads:
        voices = _voices(home, downloads)

        async def fetched(name: str, told: "Progress") -> Path:
            return await voices.get(await voices.find(name), told)

        return asyncio.run(_all({name: partial(fetched, name) for name in args.names}, is_quiet=args.quiet))


def list_models(home: Home, args: argparse.Namespace) -> int:
    """List the models that are known: size, licence, and what each needs."""
    from topicd.backends.models import known  # noqa: PLC0415 - loaded where it is used

    del home
    if args.json:
        print(json.dumps([asdict(model) for model in known().values()], indent=1))
        return OK
    for model in known().values():
        print(f"{model.name:<28}{model.size_bytes / _MB:9.1f} MB  {model.licence}")
        print(f"    {model.about} Needs {model.needs}.")
    return OK


def fetch_models(home: Home, args: argparse.Namespace) -> int:
    """Fetch known models by their names."""
    from topicd.backends.files import File  # noqa: PLC0415 - as above
    from topicd.backends.models import find  # noqa: PLC0415 - as above

    folder = args.to or home.settings.models_path
    models = [find(name) for name in args.names]
    return _files(
        home,
        {each.name: File(folder / each.file, each.urls, f"sha256:{each.sha256}", each.size_bytes) for each in models},
        args,
    )


def fetch_urls(home: Home, args: argparse.Namespace) -> int:
    """Fetch files by their addresses."""
    from topicd.backends.files import File  # noqa: PLC0415 - as above

    urls = [*dict.fromkeys(args.urls)]
    if len(urls) > 1 and (args.sha256 or args.to or args.mirror):
        raise NotFetched("bad_usage", "--sha256, --mirror and --to are for one URL.", hint="fetch it by itself")
    if args.mirror and not args.sha256:
        raise NotFetched("bad_usage", "--mirror wants --sha256.", hint="else nobody knows that it is the same file")
    digest = f"sha256:{args.sha256}" if args.sha256 else ""
    files = [File(args.to or home.spool.cache / _name(url), [url, *args.mirror], digest) for url in urls]
    named = {file.target.name: file for file in files}
    if len(named) < len(files):
        raise NotFetched("bad_name", "two addresses give files one name.", hint="fetch them one by one, with --to")
    return _files(home, named, args)


def _files(home: Home, files: "Mapping[str, File]", args: argparse.Namespace) -> int:
    for file in files.values():
        file.target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_downloads(home, args.at_once)) as downloads:
        fetches = {name: partial(downloads.fetch, file) for name, file in files.items()}
        return asyncio.run(_all(fetches, is_quiet=args.quiet))


def _downloads(home: Home, at_once: int) -> "Downloads":
    from topicd import sources  # noqa: PLC0415 - as above

    if not home.settings.ssl_verify:
        print("certificates of servers are not checked (SSL_VERIFY=false)", file=sys.stderr)
    return sources.downloads(home.settings, home.store.durable, sources.tls(home.settings), at_once=at_once)


def _voices(home: Home, downloads: "Downloads") -> "Voices":
    from topicd import sources  # noqa: PLC0415 - as above

    return sources.voices(home.settings, home.store.durable, sources.tls(home.settings), downloads)


async def _all(fetches: Mapping[str, Fetch], *, is_quiet: bool) -> int:
    """Fetch all, show how it goes, print the path of each; raise only when it was the only one."""
    from topicd.backends.files import Progress  # noqa: PLC0415 - as above

    told = {name: Progress() for name in fetches}
    watching = None if is_quiet else asyncio.create_task(_watch(told))
    try:
        ends = await asyncio.gather(*(_end(fetches[name](told[name])) for name in fetches))
    finally:
        if watching:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
    troubles = [end for end in ends if isinstance(end, TopicdError)]
    if troubles and len(ends) == 1:
        raise troubles[0]
    for name, end in zip(fetches, ends, strict=True):
        if isinstance(end, TopicdError):
            print(f"topicd: {visible(name)}: {visible(end.message)}\n  hint: {visible(end.hint)}", file=sys.stderr)
        else:
            print(end)
    return FAILED if troubles else OK


async def _end(fetch: Awaitable[Path]) -> Path | TopicdError:
    """Return how it ended: one that does not come keeps no other from coming."""
    try:
        return await fetch
    except TopicdError as error:
        return error


async def _watch(told: "Mapping[str, Progress]") -> None:
    meter = Meter()
    try:
        while True:
            meter.show(told)
            await asyncio.sleep(LOOK_S)
    finally:
        meter.show(told)
        meter.end()


def _speaks(voice: "Voice", language: str) -> bool:
    tag, wanted = voice.language.lower(), language.replace("_", "-").lower()
    return not wanted or tag == wanted or tag.startswith(f"{wanted}-")


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


def _at_once(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:4]) <= AT_ONCE_MAX:
        raise argparse.ArgumentTypeError(f"a number from 1 to {AT_ONCE_MAX} is wanted")
    return int(text)
