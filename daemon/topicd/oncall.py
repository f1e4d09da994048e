"""The command line's verbs for the person on call: fsck, backup, restore.

Owns what they print, what of the settings goes into a backup, and their exit codes beside those of `cli.py`. Promises
that results go to standard output, everything else to standard error. Never touches a job.
"""

import argparse
import contextlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from topicd.archive import NoArchive
from topicd.findings import Level
from topicd.home import Home
from topicd.progress import visible
from topicd.settings import Settings, env_name, plain

if TYPE_CHECKING:
    from topicd.fsck import Result

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
REPAIRED: Final = 5
FOUND: Final = 6

TOPICD: Final = "topicd"
KEEP_MAX: Final = 100_000
WORDS: Final = {Level.FAULT: "for a person", Level.PENDING: "that mend themselves", Level.NOTE: "to know"}
LINES_MAX: Final = 50

Verb = Callable[[Home, argparse.Namespace], int]


def add(verb: Callable[[str, Verb, str], argparse.ArgumentParser]) -> None:
    """Add the verbs to the command line's grammar."""
    one = verb("fsck", fsck, "\nMay run beside a daemon. --repair loses nothing; most repairs take a stopped daemon.")
    one.add_argument(
        "--repair", action="store_true", help="put right what the next start would, and clean finished jobs"
    )
    one.add_argument("--quick", action="store_true", help="compare products by size only, not by their bytes")
    one.add_argument("--json", action="store_true", help="one JSON document, stable within a major version")
    one = verb("backup", backup, "\nMay run beside a daemon. Prints the archive's path.")
    one.add_argument("dir", metavar="DIR", type=Path, help="a directory, best on another disk")
    one.add_argument(
        "--keep", metavar="N", type=_count, help="afterwards keep only the newest N archives of this home there"
    )
    one.add_argument("--cache", action="store_true", help="take the voices and models in cache/, too")
    one.add_argument("--secrets", action="store_true", help="leave passwords in the settings")
    one = verb("restore", restore, "\nThe home must be empty, and no daemon may run on it.")
    one.add_argument("archive", metavar="ARCHIVE", type=Path, help="with its .sha256 file beside it")


def fsck(home: Home, args: argparse.Namespace) -> int:
    """Check that every job is whole, in one place, and as the daemon left it."""
    from topicd import fsck as tool  # noqa: PLC0415 - loaded where it is used

    run = tool.repair if args.repair else tool.check
    with stopping("what was repaired stays so" if args.repair else "nothing was changed"):
        result = run(home.spool, home.store, is_quick=args.quick)
    lines = [json.dumps(result.told(), indent=1)] if args.json else map(visible, _fsck_text(result))
    print("\n".join(lines))
    return FOUND if result.has_faults else REPAIRED if result.repaired else OK


def backup(home: Home, args: argparse.Namespace) -> int:
    """Put spool, output, waiting topics and settings into one archive."""
    from topicd import backup as tool  # noqa: PLC0415 - as above

    with stopping("no archive that is not whole was left"):
        summary = tool.backup(
            home.spool,
            args.dir,
            home.store.durable,
            settings_text=settings_text(home.settings, has_secrets=args.secrets),
            has_cache=args.cache,
            keep=args.keep,
            min_free_bytes=home.settings.min_free_bytes,
        )
    print(summary.path)
    counts = f"{_many(summary.jobs, 'job')}, {_many(summary.topics, 'topic')} in input/"
    _say(f"{counts}, {summary.path.stat().st_size:,} bytes")
    _say_each("older archives removed", summary.rotated)
    _say_each("archives there that do not name this home, left alone", summary.others)
    _say_each("removed by somebody while the backup was made", summary.removed)
    _say_each("harmed already, and in the backup as it is (see topicd fsck)", summary.harmed)
    _say_each("NOT IN THE BACKUP (no older one was removed)", summary.missing)
    return FAILED if summary.missing else OK


def restore(home: Home, args: argparse.Namespace) -> int:
    """Unpack a backup into an empty home."""
    from topicd import restore as tool  # noqa: PLC0415 - as above

    try:
        done = tool.restore(home.spool, home.store, args.archive)
    except NoArchive as error:
        _say(f"topicd: {error.message}")
        _say(f"  hint: {error.hint}")
        return USAGE
    except KeyboardInterrupt:
        is_begun = any(home.spool.counts().values())
        again = "the home has a part of the backup: empty input/, spool/ and output/ first"
        _say(f"stopped; {again if is_begun else 'no job was put in place; the same command begins anew'}")
        raise
    places = ", ".join(f"{count} {place}" for place, count in done.jobs.items()) or "0 jobs"
    told = f"from a backup of {visible(done.made)}: {places}, {_many(done.topics, 'topic')} in input/"
    print(f"restored to {home.spool.home.absolute()} {told}")
    _say_each("harmed when the backup was made", sorted({*done.harmed} - {*done.unforeseen}))
    _say_each("HARMED, though the backup did not say so", done.unforeseen)
    _say_each("not in the backup, as it says itself", done.missing)
    if done.settings:
        _say(f"the settings that were in force: {done.settings}; compare them, they are not used by themselves")
    topicd = _named(home)
    _say(f"next: {topicd} fsck; {topicd} check; then start the daemon" + (" on that home" if topicd != TOPICD else ""))
    return FAILED if done.unforeseen else OK


def _named(home: Home) -> str:
    """Return how `topicd` is called for a home from the current directory."""
    path = home.spool.home.absolute()
    return TOPICD if path.resolve() == Path.cwd() else f"TOPICD_HOME={shlex.quote(str(path))} {TOPICD}"


@contextlib.contextmanager
def stopping(what: str) -> Iterator[None]:
    """Say what Ctrl-C has left, when it comes."""
    try:
        yield
    except KeyboardInterrupt:
        _say(f"stopped; {what}")
        raise


def settings_text(settings: Settings, *, has_secrets: bool) -> str:
    """Return the settings that are not defaults, in the form of `.env`.

    Args:
        settings: those in force, wherever they came from.
        has_secrets: leave in what may be a secret: passwords, and in addresses the user and what follows a `?`.
    """
    lines = ["# The settings in force when the backup was made; all others were defaults."]
    for name, info in Settings.model_fields.items():
        value = getattr(settings, name)
        if value == info.default:
            continue
        bare = plain(value)
        shown = bare if has_secrets else _without_secrets(value)
        if shown != bare:
            lines.append("# a secret was left out of the next line")
        lines.append(f"{env_name(name, info)}={_quoted(shown)}")
    return "\n".join(lines) + "\n"


def _without_secrets(value: object) -> str:
    if isinstance(value, SecretStr):
        return ""
    return plain(tuple(map(_without_secret, value)) if isinstance(value, tuple) else value)


def _without_secret(text: str) -> str:
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= KEEP_MAX:
        raise argparse.ArgumentTypeError(f"a number from 1 to {KEEP_MAX:,} is wanted")
    return int(text)


def _fsck_text(result: "Result") -> Iterator[str]:
    for each in result.findings:
        level, means, todo = each.kind
        yield f"{level.upper():<8}{each.slug:<20} {each.where}" + (f": {each.what}" if each.what else "")
        yield f"        {means}"
        yield f"        do: {todo}"
    yield from (f"        and {count} more {slug}" for slug, count in result.more.items())
    yield from (f"REPAIRED {line}" for line in result.repaired)
    yield from (f"NOT REPAIRED {line}" for line in result.not_repaired)
    counts = Counter(each.kind.level for each in result.findings)
    said = ", ".join(f"{counts[level]} {words}" for level, words in WORDS.items() if counts[level]) or "all is well"
    yield _many(result.jobs, "job") + (" beside a running daemon" if result.is_running else "") + f": {said}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _say(line: str) -> None:
    print(visible(line), file=sys.stderr)


def _say_each(what: str, names: Collection[str]) -> None:
    if names:
        _say(f"{what}: {len(names)}")
        for name in [*names][:LINES_MAX]:
            _say(f"  {name}")
