"""The command line: one verb a function.

Owns the words of `topicd --help`, the exit codes and what is printed. Promises that `status`, `show`, `retry`,
`hold`, `release` and `check` work whether a daemon runs or not, that results go to standard output and
everything else to standard error, and that `--json` prints one JSON document. Never touches a job but through
the store.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from topicd import __version__, drop, fetching, oncall
from topicd.drop import NotATopic
from topicd.errors import TopicdError, Unusable
from topicd.home import Home, check_spool
from topicd.lock import Taken
from topicd.progress import Meter, visible, wait
from topicd.report import Json, Report, show_text, status_text
from topicd.settings import load, misspelt
from topicd.settings_servers import LANGUAGE_PATTERN
from topicd.spool import DONE, Found, NoSuchJob
from topicd.states import SPOOL_PLACES, Aside, Stage
from topicd.store import Illegal

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NO_JOB: Final = 3
NOT_NOW: Final = 4
TAKEN: Final = 75
CONFIG: Final = 78
INTERRUPTED: Final = 130
NAME_CHARS_MAX: Final = 60

EXIT_CODES: Final = {
    OK: "done",
    FAILED: (
        "the job failed or was held; `check` found something wrong; a backup is not whole; a file was not fetched; "
        "or the disk refused"
    ),
    USAGE: "the command line is wrong, or names no topic or archive",
    NO_JOB: "no job, or more than one, goes by that name",
    NOT_NOW: "the job is not where that can be done (retry of a finished job, release of one not held)",
    oncall.REPAIRED: "`fsck` put everything right that needed it",
    oncall.FOUND: "`fsck` found what it has not put right",
    TAKEN: "another daemon works on this home, or another backup on that directory",
    CONFIG: "a setting is wrong, or the home or the port cannot be used; nothing was started",
    INTERRUPTED: "stopped by Ctrl-C; a job goes on, a fetch keeps what it has",
}


def run(home: Home, args: argparse.Namespace) -> int:
    """Run the daemon in the foreground."""
    from topicd import app  # noqa: PLC0415 - the daemon's libraries; the other verbs start faster without them

    app.run(home.settings, once=args.once)
    return OK


def add(home: Home, args: argparse.Namespace) -> int:
    """Drop a topic into input/."""
    data, name = drop.read(args.topic, home.settings.topic_bytes_max)
    drop.make(home.spool.input)
    known = frozenset(job for place in (*SPOOL_PLACES, DONE) for job in home.spool.ids(place))
    path = drop.drop(home.spool.input, data, name)
    if not args.wait:
        print(path)
        _say_if_idle(home)
        return OK
    try:
        found = wait(
            home.spool,
            home.store,
            Meter(),
            source=path.name,
            sha256=hashlib.sha256(data).hexdigest(),
            known=known,
        )
    except KeyboardInterrupt:
        print(f"\nstopped waiting; the job goes on. `topicd show {visible(path.stem)}` tells of it", file=sys.stderr)
        return INTERRUPTED
    if found.place == DONE:
        print(found.path)
        return OK
    _print_reason(home, found)
    return FAILED


def status(home: Home, args: argparse.Namespace) -> int:
    """Tell what waits, works, failed and is done."""
    check_spool(home.spool)
    _print(Report(home.spool, home.store).status(), args, status_text)
    return OK


def show(home: Home, args: argparse.Namespace) -> int:
    """Tell all about one job."""
    _print(Report(home.spool, home.store).show(_find(home, args.job)), args, show_text)
    return OK


def retry(home: Home, args: argparse.Namespace) -> int:
    """Let failed jobs begin anew; what is whole is kept."""
    if args.stage and not args.all:
        raise NotATopic("usage", "--stage goes with --all")
    chosen = list(_failed(home, args.stage)) if args.all else [_find(home, args.job)]
    if not chosen:
        print("nothing has failed" + (f" in {args.stage}" if args.stage else ""), file=sys.stderr)
    for found in chosen:
        with contextlib.suppress(FileNotFoundError):  # someone was faster
            moved = home.store.retry(found)
            print(f"{visible(moved.id)}  goes on in {moved.place}/")
    if chosen:
        _say_if_idle(home)
    return OK


def hold(home: Home, args: argparse.Namespace) -> int:
    """Put a job aside."""
    print(f"{visible(home.store.hold(_find(home, args.job)).id)}  held")
    return OK


def release(home: Home, args: argparse.Namespace) -> int:
    """Let a held job go on."""
    moved = home.store.release(_find(home, args.job))
    print(f"{visible(moved.id)}  goes on in {moved.place}/")
    _say_if_idle(home)
    return OK


def prompt(home: Home, args: argparse.Namespace) -> int:
    """Print the prompt that scripts are asked for with, to be edited."""
    from topicd.backends.writing import Prompts  # noqa: PLC0415 - loaded where it is used

    language = args.language or home.settings.language
    if not re.fullmatch(LANGUAGE_PATTERN, language):
        raise NotATopic("usage", f"{language[:NAME_CHARS_MAX]!r} is no language", hint="a tag such as en or pt-BR")
    prompts = Prompts(home.settings.prompts_path)
    if not prompts.has(language):
        print(f"there is no prompt for {language}; this is the general one", file=sys.stderr)
    print(prompts.text(language), end="")
    return OK


def check(home: Home, args: argparse.Namespace) -> int:
    """Try everything a job needs: directories, free space, each backend."""
    from topicd import checks  # noqa: PLC0415 - starts the backends

    with oncall.stopping("no job was touched"):
        results = checks.run(home.settings, home.spool, home.store)
    for name, meant in misspelt():
        text, hint = f"{name} is set and not used", f"was {meant} meant?"
        results.append({"name": "unused", "ok": True, "text": text, "hint": hint, "seconds": 0.0})
    _print({"ok": all(each["ok"] for each in results), "checks": results}, args, _check_text)
    return OK if all(each["ok"] for each in results) else FAILED


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # a path is printed with its own bytes
    try:
        return _run(argv)
    except TopicdError as error:
        print(f"topicd: {visible_lines(error.message)}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {visible_lines(error.hint)}", file=sys.stderr)
        return _code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `topicd status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except FileNotFoundError as error:
        print(f"topicd: {visible_lines(str(error))}: it moved on, or was never there", file=sys.stderr)
        return NO_JOB
    except OSError as error:
        print(f"topicd: {visible_lines(str(error))}", file=sys.stderr)
        return FAILED


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = parser().parse_args(argv)
        return int(args.verb(Home.of(load()), args))
    finally:
        sys.stdout.flush()  # here, where a reader that is gone is no fault, not at the interpreter's end


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar and help."""
    codes = "\n".join(f"  {code:<4} {meaning}" for code, meaning in EXIT_CODES.items())
    top = argparse.ArgumentParser(
        prog="topicd",
        description="Turn topics into folders you can publish: drop a file into input/, get a folder in output/.",
        epilog=f"exit codes:\n{codes}\n\nsettings come from the environment and .env; .env.example lists them",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"topicd {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB", title="verbs")

    def verb(name: str, function: Callable[[Home, argparse.Namespace], int], more: str = "") -> argparse.ArgumentParser:
        text = function.__doc__ or ""
        added = verbs.add_parser(
            name,
            help=text.rstrip("."),
            description=f"{text}\n{more}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(verb=function)
        return added

    one = verb(
        "run", run, "\nSIGTERM or Ctrl-C stops it within seconds and loses nothing; a second one ends it at once."
    )
    one.add_argument(
        "--once", action="store_true", help="end when nothing is left to do (waits for jobs that are to be tried again)"
    )
    one = verb("add", add, "\nPrints the path in input/; with --wait, the finished folder.")
    one.add_argument(
        "topic", metavar="FILE|TEXT", help='a .md or .txt file, "-" for standard input, or the topic itself'
    )
    one.add_argument("--wait", action="store_true", help="show progress until the job is done or failed")
    _json(verb("status", status))
    _json(_job(verb("show", show)))
    one = verb("retry", retry)
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("job", metavar="JOB", nargs="?", help="a job's id, or any part of it that fits no other")
    which.add_argument("--all", action="store_true", help="every job in failed/")
    one.add_argument(
        "--stage", choices=[str(stage) for stage in Stage], help="with --all: only those that failed in this stage"
    )
    _job(verb("hold", hold, "\nAlso while it is in work: that stops within moments, and the finished units are kept."))
    _job(verb("release", release))
    _json(verb("check", check, "\nMay run beside a daemon."))
    one = verb("prompt", prompt, "\nSaved as prompts/LANGUAGE.txt in the home, it is used instead of the packaged one.")
    one.add_argument("language", metavar="LANGUAGE", nargs="?", help="such as en or pt-BR; else the one that is set")
    fetching.add(verb)
    oncall.add(verb)
    return top


def visible_lines(text: str) -> str:
    """Return text safe to show, with its line breaks."""
    return "\n".join(map(visible, text.split("\n")))


def _say_if_idle(home: Home) -> None:
    if not home.store.holder():
        print("no daemon is running here; `topicd run` takes it up", file=sys.stderr)


def _job(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
    added.add_argument("job", metavar="JOB", help="a job's id, or any part of it that fits no other")
    return added


def _json(added: argparse.ArgumentParser) -> argparse.ArgumentParser:
    added.add_argument("--json", action="store_true", help="one JSON document, stable within a major version")
    return added


def _code(error: TopicdError) -> int:
    match error:
        case NotATopic():
            return USAGE
        case NoSuchJob():
            return NO_JOB
        case Illegal():
            return NOT_NOW
        case Taken():
            return TAKEN
        case Unusable():
            return CONFIG
        case _:
            return FAILED


def _find(home: Home, text: str) -> Found:
    """Return the one job that goes by a name; one that is in two places is for `fsck`, not for more of its id."""
    found = [place for place in (*SPOOL_PLACES, DONE) if text in home.spool.each(place)]
    found = [
        place for place in found if not home.spool.missing(place, [text])
    ]  # it may have moved under the first look
    if len(found) > 1:
        where = " and in ".join(f"{place}/" for place in found)
        raise NoSuchJob("job_twice", f"{text} is in {where}", hint="see `topicd fsck`")
    return home.spool.find(text)


def _failed(home: Home, stage: str | None) -> Iterator[Found]:
    for name in home.spool.ids(Aside.FAILED):
        path = home.spool.place(Aside.FAILED) / name
        reason = home.spool.read_reason(path)
        if stage is None or (reason and reason.stage == stage):
            yield Found(Aside.FAILED, name, path)


def _print(document: Json, args: argparse.Namespace, as_text: Callable[[Json], Iterator[str]]) -> None:
    if args.json:
        print(json.dumps(document, indent=1))
    else:
        print("\n".join(map(visible, as_text(document))))


def _print_reason(home: Home, found: Found) -> None:
    reason = home.spool.read_reason(found.path)
    print(f"{visible(found.id)} is in {found.place}/", file=sys.stderr)
    if reason:
        lines = (f"{reason.stage} {reason.unit}: {reason.message}", f"hint: {reason.hint}")
        print("\n".join(f"  {visible(line)}" for line in lines), file=sys.stderr)


def _check_text(told: Json) -> Iterator[str]:
    for each in told["checks"]:
        yield f"{'ok ' if each['ok'] else 'BAD'}  {each['name']:<10}{each['text']}"
        if each["hint"]:
            yield f"                hint: {each['hint']}"


if __name__ == "__main__":
    sys.exit(main())
