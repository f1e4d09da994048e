"""What the page says of what waits, is held or went wrong, in both languages."""

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files as package_files
from pathlib import Path

import pytest

from rig.site import DONE, FAILED, OPEN, Site, Tags
from rig.tree import failed, finished
from topicd import durable, errors, startup
from topicd.backends import classify
from topicd.errors import CAUSES
from topicd.intake import look
from topicd.job import Manifest, Trouble, decode, encode
from topicd.settings import Settings
from topicd.showing import ASIDE_MAX
from topicd.web import Health
from topicd.web.causes import KINDS, NOTES, PORTUGUESE
from topicd.web.pulse import Pulse
from topicd.web.texts import Words

SOURCE = Path(str(package_files("topicd")))
ERRORS = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
LOW = "1 bytes are free in /x; work needs 2 (free some space)"


def waits(what: str, cause: str, why: str) -> Health:
    return Health(ok=False, why=(why,), more={"waits": [{"what": what, "cause": cause}]})


def text(page: str, part: str) -> str:
    """Return the words of one part of a page."""
    return Tags(page.partition(f'<section id="{part}"')[2].partition("</section>")[0]).words


def raised() -> Iterator[str]:
    """Yield the causes of what backends, the watch over the directories and the page's stage raise."""
    places = ("backends/**/*.py", "stages/*.py", "gpu.py", "inotify.py", "watcher.py")
    for path in (path for place in places for path in SOURCE.glob(place)):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(name), args=[ast.Constant(str(cause)), *_]) if name in ERRORS and cause:
                    if cause != "settings":  # these end the daemon at its start
                        yield cause


def noted() -> Iterator[str]:
    """Yield the notes that downloads can have, other than faults."""
    for path in (SOURCE / "backends").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Assign(targets=[*_, ast.Attribute(attr="note")], value=ast.Constant(str(note))):
                    yield note
                case ast.keyword(arg="note", value=ast.Constant(str(note))):
                    yield note


def test_each_fault_that_a_person_can_see_is_told_in_portuguese() -> None:
    of_answers = {row[1] for row in (*classify._STATUSES.values(), *classify._FAMILIES.values())}
    of_exceptions = {row[2] for row in classify._error_rows()}
    of_disks = {cause for cause, _ in durable._STORAGE_CAUSES.values()}
    of_disks |= set(re.findall(r'StorageTrouble\(\s*"(\w+)"', (SOURCE / "gate.py").read_text()))
    assert len(of_disks) > 8
    seen = CAUSES | of_answers | of_exceptions | of_disks | set(raised())
    assert seen <= PORTUGUESE.keys(), seen - PORTUGUESE.keys()
    sources = "".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "causes.py")
    assert not [cause for cause in PORTUGUESE if f'"{cause}"' not in sources]
    for cause, (sentence, advice) in PORTUGUESE.items():
        assert sentence.endswith("."), cause
        assert advice.endswith((".", "?")), cause


async def test_an_error_is_told_in_the_pages_language_before_the_daemons_own_words(site: Site) -> None:
    failed(site.spool.place("failed"), FAILED, "It said nothing.")
    path = failed(site.spool.place("audio"), OPEN, "")
    late = Trouble("2026-11-27T10:00:05.000Z", "audio", "audio/002", "rate_limited", "gpu:1 answers HTTP 429.")
    (path / "job.json").write_bytes(encode(replace(site.spool.read_job(path), last_error=late)))
    sentence, advice = PORTUGUESE["script_empty"]
    for page in ("/", f"/jobs/{FAILED}"):
        words = await site.words(f"{page}?lang=pt")
        assert f"{sentence}O que fazer {advice}It said nothing. · hint: It said nothing." in words
        assert "Roteiros · roteiro" in words
        assert sentence not in await site.words(page)
    for page in ("/", f"/jobs/{OPEN}"):
        words = await site.words(f"{page}?lang=pt")
        assert re.search(f"{re.escape(PORTUGUESE['rate_limited'][0])}.*gpu:1 answers HTTP 429", words)


async def test_a_cause_of_somebodys_own_is_told_by_the_daemons_words(site: Site) -> None:
    path = failed(site.spool.place("failed"), FAILED, "")
    own = Trouble("2026-11-27T10:00:05.000Z", "audio", "", "my_own", "The choir is ill.", "call the choir")
    (path / "reason.json").write_bytes(encode(own))
    assert "The choir is ill.O que fazer call the choir" in await site.words("/?lang=pt")


def test_each_note_of_a_download_is_told_in_portuguese() -> None:
    assert {*noted()} - {""} == NOTES.keys()
    portuguese = Words("pt")
    for note in NOTES:
        assert portuguese.note(note) not in ("", note)
        assert Words("en").note(note) == ""
    assert portuguese.note("gpu:1 answers HTTP 429.") == "", "a fault is told by its own words"
    for path, kind in (("a1111.py", "drawing:"), ("pull.py", "pulling")):
        assert f'f"{kind} {{' in (SOURCE / "backends" / path).read_text()
    assert portuguese.note("drawing: 40 %") == "desenhando: 40 %"
    assert portuguese.note("pulling tiny:1b: 34 % of 2.0 GB") == "baixando tiny:1b: 34 % of 2.0 GB"


async def test_what_the_settings_are_warned_of_is_told_in_the_pages_language(site: Site, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, ssl_verify=False)
    told = list(startup.warnings(settings, [("OLLAMA_BASEURL", "OLLAMA_BASE_URL")]))
    assert len(told) == 2
    assert not [each for each in told if not Words("pt").warning(each)]
    site.ready = Health(ok=True, more={"warnings": [*told, "of somebody's own"]})
    english, portuguese = [text((await site.get(f"/?lang={each}")).text, "headline") for each in ("en", "pt")]
    for each in told:
        assert each in english
        assert Words("pt").warning(each) in portuguese
    assert "OLLAMA_BASEURL está configurado e não é usado; seria OLLAMA_BASE_URL?" in portuguese
    assert "of somebody's own" in portuguese


async def test_a_servers_and_the_watchers_trouble_are_told_in_the_pages_language(site: Site) -> None:
    refuses, low = "gpu:1 refuses connections.", "The kernel grants this user no more inotify watches."
    since = {"state": "open", "since": "2026-11-27T10:00:00.000Z", "trouble": refuses, "cause": "connect_refused"}
    server = {"stage": "images", "server": "gpu:1", "calls": 0, "waiting": 0, "note": "drawing: 40 %", **since}
    watch = {"mode": "poll", "up": True, "trouble": low, "hint": "sysctl", "cause": "watch_limit"}
    site.ready = Health(ok=True, more={"servers": [server], "watcher": watch})
    english, portuguese = [(await site.get(f"/?lang={each}")).text for each in ("en", "pt")]
    assert f"{PORTUGUESE['connect_refused'][0]} {refuses}" in text(portuguese, "servers")
    assert "desenhando: 40 %" in text(portuguese, "servers")
    assert f": {refuses}" in text(english, "servers")
    assert "drawing: 40 %" in text(english, "servers")
    assert PORTUGUESE["watch_limit"][0] in text(portuguese, "house")
    assert f"{low}What to do sysctl" in text(english, "house")
    deaf = Health(ok=False, why=(low,), more={"watcher": {**watch, "up": False}})
    site.ready = replace(deaf, more={**deaf.more, "waits": [{"what": "input", "cause": "watch_limit"}]})
    portuguese = (await site.get("/?lang=pt")).text
    assert " ".join(PORTUGUESE["watch_limit"]) in text(portuguese, "headline")
    assert low not in text(portuguese, "house"), "it is said once"


async def test_what_is_ignored_is_told_in_the_pages_language(site: Site, tmp_path: Path) -> None:
    (site.spool.input / "a song.mp3").touch()
    (site.spool.input / "folder").mkdir()
    (site.spool.input / "link.md").symlink_to(tmp_path)
    _, ignored = look(site.spool.input)
    assert {each.kind for each in ignored} == {"not a .md or .txt file", "directory", "symbolic link"}
    words = await site.words("/?lang=pt")
    for each in ignored:
        assert f"{each.name} ignorado: {KINDS[each.kind]}" in words
    in_source = (SOURCE / "intake.py").read_text()
    table = set(re.findall(r'stat\.S_IF\w+: "([^"]+)"', in_source)) | set(
        re.findall(r'entry\.name, "([^"]+)"', in_source)
    )
    assert table == KINDS.keys()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("output", "Roteiros prontos Áudio pronto Imagens prontas"),
        ("images", "Roteiros prontos Áudio pronto Imagens na fila"),
        ("held", "Roteiros prontos Áudio em pausa Imagens a seguir"),
        ("failed", "Roteiros com falha Áudio a seguir Imagens a seguir"),
    ],
)
async def test_a_stages_words_agree_with_its_name(site: Site, place: str, told: str) -> None:
    if place == "failed":
        failed(site.spool.place(place), DONE, "x")
    else:
        finished(site.spool.place(place), DONE)
    page = (await site.get(f"/jobs/{DONE}?lang=pt")).text
    steps = page.partition('<section id="steps"')[2].partition("</section>")[0]
    said = re.findall(r"<b>([^<]+)</b><span class=\"state[^>]*>([^<]+)<", steps)
    assert " ".join(" ".join(each) for each in said) == told


async def test_held_jobs_are_listed_the_newest_first(site: Site) -> None:
    assert 'href="#held"' not in (await site.get("/")).text
    names = [f"20261127-1000{number:02}-000000-x" for number in range(ASIDE_MAX + 2)]
    for number, name in enumerate(names):
        failed(site.spool.place("held"), name, "", source=f"topic {number}.md")
    failed(site.spool.place("failed"), FAILED, "Nothing came.")
    page = (await site.get("/")).text
    assert re.findall(r"topic (\d+)\.md</bdi> · ", page) == [str(number) for number in range(ASIDE_MAX + 1, 1, -1)]
    assert "Held jobs" in text(page, "held")
    assert "and 2 more" in text(page, "held")
    for part in ("failures", "held"):
        assert page.count(f'href="#{part}"') == 1
        assert page.count(f'id="{part}"') == 1


async def test_the_headline_says_what_is_waited_for(site: Site) -> None:
    site.ready = waits("disk", "disk_low", LOW)
    assert "Nothing to do" in text((await site.get("/")).text, "headline")
    for number in range(2):
        (site.spool.input / f"{number}.md").touch()
    site.ready = Health(ok=True)
    assert "2 topics to be taken" in text((await site.get("/")).text, "headline")
    site.ready = waits("disk", "disk_low", LOW)
    english, portuguese = [text((await site.get(f"/?lang={each}")).text, "headline") for each in ("en", "pt")]
    assert "Waiting for the disk2 topics to be taken" in english
    assert "Drop a topic" not in english
    assert "À espera do disco2 tópicos" in portuguese
    assert " ".join(PORTUGUESE["disk_low"]) + LOW in portuguese
    assert 'class="original"' in (await site.get("/?lang=pt")).text
    site.ready = replace(site.ready, why=("starting or stopping", LOW))
    assert 'class="original"' not in (await site.get("/?lang=pt")).text, "what has no other words is not in small print"
    site.ready = Health(ok=False, why=("starting or stopping",))
    assert "Waiting until topicd is ready" in text((await site.get("/")).text, "headline")
    failed(site.spool.place("images"), OPEN, "")
    site.ready = waits("images", "connect_refused", "images waits: gpu:1 refuses connections.")
    assert "Waiting for the images' backend1 job waiting" in text((await site.get("/")).text, "headline")


async def test_a_job_in_work_is_told_whatever_else_waits(site: Site) -> None:
    failed(site.spool.place("audio"), OPEN, "")
    with site.store.locked({}):
        site.spool.marker("audio", OPEN, site.store.run).touch()
        site.ready = waits("images", "connect_refused", "images waits: gpu:1 refuses connections.")
        assert "1 job in work" in text((await site.get("/")).text, "headline")


async def test_less_than_an_hour_is_called_what_it_is(site: Site) -> None:
    assert "Since the start" in await site.words("/")
    now_s = [0.0]
    pulse = Pulse(lambda: now_s[0])
    assert not pulse.lately().is_whole
    now_s[0] = 3600.0
    assert pulse.lately().is_whole
    site.shown._pulse = pulse
    assert "Last hour" in await site.words("/")


async def test_a_draft_is_called_one(site: Site) -> None:
    path = finished(site.spool.output, DONE)
    assert "draft" not in text((await site.get(f"/jobs/{DONE}")).text, "headline")
    manifest = decode(Manifest, (path / "manifest.json").read_bytes(), "manifest.json")
    products = tuple(replace(each, by={**each.by, "way": "draft"}) for each in manifest.products)
    (path / "manifest.json").write_bytes(encode(replace(manifest, products=products)))
    assert "draft" in text((await site.get(f"/jobs/{DONE}")).text, "headline")
    assert "rascunho" in text((await site.get(f"/jobs/{DONE}?lang=pt")).text, "headline")


async def test_a_job_without_a_script_is_called_by_its_topic_which_is_read_once(site: Site) -> None:
    topic = failed(site.spool.place("scripts"), OPEN, "", source="notes-7.md") / "topic.md"
    topic.write_text("---\nscenes: 2\n---\n# Why it *rains*\n\nTell it.\n")
    assert "Why it rains" in await site.words("/")
    changed_ns = topic.lstat().st_mtime_ns
    topic.write_text("# Never read\n")
    os.utime(topic, ns=(changed_ns, changed_ns))
    assert "Why it rains" in await site.words(f"/jobs/{OPEN}")
    topic.write_text("x" * 100_000)
    assert "notes-7" in await site.words(f"/jobs/{OPEN}")


@pytest.mark.parametrize("verb", ["retry", "release", "hold"])
@pytest.mark.parametrize("language", ["en", "pt"])
def test_a_command_is_announced(verb: str, language: str) -> None:
    assert Words(language)(verb).endswith(":")
