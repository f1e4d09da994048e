"""What must be true of every topic dropped: at every instant, and at the end; and of every word in the daemons' logs.

A check that fails tells the topic, where it is, and what the daemons said of it.
"""

import contextlib
import hashlib
import json
import wave
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from rig.daemon import Home, load
from rig.load import MARKER, Topic, everything
from topicd.durable import Durable
from topicd.states import SPOOL_PLACES, Stage
from topicd.workspace import Workspace

PRODUCTS = {
    "script.md",
    "scenes.json",
    "audio/001.wav",
    "audio/001.json",
    "audio/002.wav",
    "audio/002.json",
    "audio.wav",
    "timeline.json",
    "captions.vtt",
    "captions.srt",
    "images/title.png",
    "images/001.png",
    "images/002.png",
    "index.html",
}
UNSAID_MAX = 2
"""A death may come between what is durable and the word of it."""
FAULTS_TOLD_MAX = 5
LINES_TOLD_MAX = 25
ENDS = {
    f"topicd.{name}"
    for name in (
        "stage.finished",
        "job.crashed",
        "job.deferred",
        "job.waiting",
        "job.given_back",
        "job.moved_away",
        "job.failed",
    )
}


def check_instant(home: Home, topics: Iterable[Topic]) -> None:
    """Check, while no daemon runs, that every topic is in exactly one place; two while it is copied between disks."""
    places = _marked([*home.input.glob("*"), *_topic_files(home)])
    most = 1 if home.input.is_relative_to(home.path) else 2
    _in_places(home, topics, places, most)


def check_end(
    home: Home, topics: Collection[Topic], *, edits: Mapping[str, Collection[bytes]] | None = None
) -> list[Path]:
    """Check, after `run_out`, that every topic ended once, that what is finished is whole, and nothing else is left.

    Args:
        home: where.
        topics: what was dropped.
        edits: marker → the bytes that a person may have given that topic since.

    Returns:
        The directories of the jobs in `failed/`, for the caller to judge.
    """
    places = _marked(path for path in everything(home) if path.is_file() and not path.is_symlink())
    _in_places(home, topics, places, 1)
    faults, failed = list[str](), list[Path]()
    for topic in topics:
        folder = places[topic.marker][0].parent
        texts = {topic.data, *(edits or {}).get(topic.marker, ())}
        if folder.parent == home.output:
            faults += [
                f"{topic} in {folder}: {fault}\n{story(home, folder.name)}" for fault in _harm(folder, topic, texts)
            ]
        elif folder.parent == home.spool / "failed":
            failed.append(folder)
        else:
            faults.append(f"{topic} has not ended, it is in {folder}\n{story(home, folder.name)}")
    faults += [f"left over: {path}\n{story(home, path.name)}" for path in leftovers(home)]
    _tell(faults)
    return failed


def check_logs(home: Home) -> None:
    """Check the word of every daemon that ran.

    What was accepted is there, what was done is done, no attempt begins before the one before it has ended or was
    counted as a crash, no bug was met.
    """
    events = [*logged(home)]
    there = {name for place in (*SPOOL_PLACES, "output") for name in home.ids(place)}
    done = set(home.ids("output"))
    faults = [
        f"{event['event']} was said, and the job is not there: {event}"
        for event in events
        if (event["event"] == "topicd.job.accepted" and event["job"] not in there)
        or (event["event"] == "topicd.job.done" and event["job"] not in done)
        or event["event"] == "topicd.stage.bug"
    ]
    unsaid = [f"begun again, and how it ended the first time was not said: {event}" for event in _begun_twice(events)]
    if len(unsaid) > UNSAID_MAX:
        faults += unsaid
    faults += [f"a traceback in {log}" for log in _logs(home) if "Traceback" in log.read_text()]
    _tell(faults)


def _begun_twice(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield each beginning of an attempt whose job was in hand in that stage, as far as anybody was told."""
    in_hand = set[tuple[str, str]]()
    for event in events:
        attempt = (event.get("job", ""), event.get("stage", ""))
        if event["event"] == "topicd.stage.started":
            if attempt in in_hand:
                yield event
            in_hand.add(attempt)
        elif event["event"] in ENDS:
            in_hand.discard(attempt)


def logged(home: Home, name: str = "") -> Iterator[dict[str, Any]]:
    """Yield the events of every daemon that ran in this home, in order; those of one name if given."""
    for log in _logs(home):
        for line in log.read_text().splitlines():
            event = json.loads(line) if line.endswith("}") else {}
            if event.get("event") == f"topicd.{name}" or (event and not name):
                yield event


@contextlib.contextmanager
def speaking(home: Home, seed: int) -> Iterator[None]:
    """Let a failure of the block tell the seed and the end of the last daemon's log."""
    try:
        yield
    except BaseException as error:
        last = [*_logs(home)][-1:]
        error.add_note("\n".join([f"SEED={seed}", *(log.read_text()[-2000:] for log in last)]))
        raise


def story(home: Home, needle: str) -> str:
    """Return what the daemons said of a job, and where it is."""
    lines = [line for log in _logs(home) for line in log.read_text().splitlines() if needle in line]
    where = [str(path) for path in everything(home) if needle in path.name]
    return "\n".join(["  where: " + ", ".join(where), *(f"  {line[:400]}" for line in lines[-LINES_TOLD_MAX:])])


def leftovers(home: Home) -> list[Path]:
    """Return what should not be in a home at rest: hidden and temporary files, jobs in stages, folders of no topic."""
    temporary = [
        path
        for path in everything(home)
        if path.name.startswith(".") or path.name.endswith((".tmp", ".incoming", ".begun", ".part"))
    ]
    waiting = [path for stage in Stage for path in (home.spool / stage).iterdir()] + list(home.input.iterdir())
    ended = [*(home.spool / "failed").iterdir(), *(home.spool / "held").iterdir(), *home.output.iterdir()]
    empty = [path for path in ended if not (path / "topic.md").exists()]
    return [path for path in {*temporary, *waiting, *empty} if path != home.spool / ".lock"]


def _logs(home: Home) -> list[Path]:
    return sorted(home.logs.glob("log-*.jsonl"), key=lambda path: int(path.stem.removeprefix("log-")))


def _topic_files(home: Home) -> Iterator[Path]:
    """Yield every file that may hold a topic's bytes: also hidden ones, half-way copies and publishes."""
    for root in (*(home.spool / place for place in SPOOL_PLACES), home.output):
        for folder in root.iterdir() if root.is_dir() else ():
            yield folder / "topic.md"
            yield from folder.glob(".topic.md.*")


def _marked(paths: Iterable[Path]) -> dict[str, list[Path]]:
    found = defaultdict[str, list[Path]](list)
    for path in paths:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
            for marker in MARKER.findall(path.read_bytes()):
                found[marker.decode()].append(path)
    return found


def _in_places(home: Home, topics: Iterable[Topic], places: Mapping[str, list[Path]], most: int) -> None:
    found = [(topic, places.get(topic.marker, [])) for topic in topics]
    wrong = [(topic, where) for topic, where in found if not 1 <= len(where) <= most]
    _tell([f"{topic} is in {len(where)} places: {where}\n{story(home, topic.name)}" for topic, where in wrong])


def _harm(folder: Path, topic: Topic, texts: Collection[bytes]) -> Iterator[str]:
    """Yield what is wrong with a finished job."""
    space = Workspace(folder, Durable())
    if not all(space._matches(entry) for entry in space.manifest.products):
        yield "a product is not what the manifest says"
    listed = Counter(entry.path for entry in space.manifest.products)
    if set(listed) != PRODUCTS or max(listed.values()) > 1:
        yield f"the manifest lists {sorted(listed.elements())}"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if extra := files ^ {*PRODUCTS, "topic.md", "job.json", "manifest.json"}:
        yield f"files too many or missing: {extra}"
    job, scenes = load(folder / "job.json"), load(folder / "scenes.json")
    if (job["id"], job["source"]) != (folder.name, topic.name):
        yield f"job.json is of {job['id']} from {job['source']}"
    if job["sha256"] != hashlib.sha256(topic.data).hexdigest():
        yield "job.json has the digest of another topic"
    if scenes["title"] != topic.title or scenes["topic_sha256"] not in map(_sha256, texts):
        yield f"the script is of another topic: {scenes['title']}"
    yield from _unreadable(folder)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _unreadable(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.wav"):
        with contextlib.closing(wave.open(str(path), "rb")) as sound:
            if sound.getnframes() * 2 != len(sound.readframes(sound.getnframes())):
                yield f"{path.name} is cut"
    for path in folder.rglob("*.png"):
        with Image.open(path) as picture:
            picture.load()


def _tell(faults: list[str]) -> None:
    more = f"\n… and {len(faults) - FAULTS_TOLD_MAX} more" if len(faults) > FAULTS_TOLD_MAX else ""
    if faults:
        raise AssertionError("\n".join(faults[:FAULTS_TOLD_MAX]) + more)
