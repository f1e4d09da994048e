"""A job's page as markup: where it stands, how it sounds and looks, and how each part of it was made.

Owns what is on it. Promises a player that works without its script, the pictures with their words, and the very command
that moves the job on. Pure: no I/O.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from topicd.states import Aside, Stage
from topicd.web.frame import badge, document, dotted, file_url, panel, time, title, trouble
from topicd.web.html import Child, Html, join, tag
from topicd.web.texts import Words

Json = dict[str, Any]
AUDIO, VTT, TITLE_PICTURE = "audio.wav", "captions.vtt", "images/title.png"
_SAVES: Final = (
    ("index.html", "save_page"),
    (AUDIO, "save_audio"),
    ("captions.srt", "save_captions"),
    ("script.md", "save_script"),
)
_KINDS: Final[Mapping[str, str]] = {"done": "good", "working": "good", "failed": "bad", "damaged": "bad"}
# A stage's words for its state are not a job's: other genders, other numbers.
_DONE_STEPS: Final[Mapping[str, str]] = {
    Stage.SCRIPTS: "scripts_done",
    Stage.AUDIO: "audio_done",
    Stage.IMAGES: "images_done",
}
_STEPS: Final[Mapping[str, str]] = {
    "failed": "state_failed",
    "held": "stage_held",
    "deferred": "stage_deferred",
    "damaged": "stage_damaged",
}
_VERBS: Final[Mapping[str, str]] = {
    "failed": "retry",
    "damaged": "retry",
    "deferred": "retry",
    "held": "release",
    "waiting": "hold",
    "working": "hold",
}


def job_page(words: Words, told: Json, here: str) -> str:
    """Return the page of a job.

    Args:
        words: in which language.
        told: what `showing` saw of it.
        here: its address.
    """
    is_open = told["place"] in list(Stage)
    return document(
        words,
        told["title"],
        panel("headline", *_headline(words, told), label=words("job")),
        panel("trouble", *_trouble(words, told), label=words("trouble")),
        panel("steps", tag("ol", *_steps(words, told)), label=words("steps")),
        tag(
            "div",
            panel("listen", *_player(words, told), label=words("listen"), kind="player"),
            panel("script", *_script(words, told)),
            panel("history", title(words, "history", "history"), _history(words, told)),
            class_="columns",
        ),
        panel("files", *_files(words, told)),
        here=here,
        watches=is_open,
    )


def _headline(words: Words, told: Json) -> Iterator[Child]:
    state = told["state"]
    is_draft = any(each["by"].get("way") == "draft" for each in told["products"])
    yield tag(
        "p",
        badge(words(f"state_{state}" if state in {*Aside} else state), _KINDS.get(state, "wait")),
        join(" ", badge(words("draft"), "wait")) if is_draft else None,
    )
    yield tag("h1", tag("span", told["title"], lang=told["language"] or None, dir="auto"))
    scenes, length_s = len(told["scenes"]), told["length_s"]
    yield tag(
        "p",
        dotted(
            tag("bdi", told["source"]) if told.get("source") else None,
            time(told["accepted"], ago=True) if told.get("accepted") else None,
            words.many("scenes", scenes) if scenes else None,
            _clock(length_s) if length_s else None,
        ),
        class_="quiet",
    )
    if is_draft:
        yield tag("p", words("draft_note"), class_="quiet")


def _trouble(words: Words, told: Json) -> Iterator[Child]:
    error = told["reason"] or told["last_error"]
    if error:
        where = [words(error["stage"]), words.unit(error["unit"]) or None, time(error["at"], ago=True)]
        yield tag("p", dotted(*where), class_="facts")
        yield trouble(words, error)
    elif told["damaged"]:
        yield trouble(words, {"message": told["damaged"], "cause": "job_damaged"})
    if verb := _VERBS.get(told["state"]):
        command = f"{told['command']} {verb} {shlex.quote(told['job'])}"
        yield tag(
            "p",
            tag("span", words(verb)),
            " ",
            tag("code", command, data_copy=words("copy"), data_copied=words("copied")),
        )
        if told["command"] == "topicd":
            yield tag("p", words("run_in", folder=told["home"]), class_="quiet")


def _steps(words: Words, told: Json) -> Iterator[Html]:
    order = list(Stage)
    stands = order.index(told["stage"]) if told["stage"] in order else len(order)
    for number, stage in enumerate(order):
        state = "done" if number < stands else told["state"] if number == stands else "to_come"
        yield tag(
            "li", *_step(words, told, stage, state), class_=state, aria_current="step" if number == stands else None
        )


def _step(words: Words, told: Json, stage: Stage, state: str) -> Iterator[Child]:
    yield tag("b", words(stage))
    key = _DONE_STEPS[stage] if state == "done" else _STEPS.get(state, state)
    yield tag("span", words(key), class_=f"state {state}")
    progress, seconds = told["progress"], told["seconds"].get(stage)
    if state not in {"done", "to_come"} and progress and progress["of"]:
        units = words("units", n=progress["n"], of=progress["of"])
        label = words("progress_of", name=words(stage))
        yield tag("span", units)
        yield tag("progress", units, value=progress["n"], max=progress["of"], aria_label=label)
    if seconds:
        yield tag("span", words("took", time=words.span(seconds)), class_="quiet")
    for key in ("attempts", "crashes"):
        if count := told[key].get(stage):
            yield tag("span", words.many(key, count), class_="state failed")


def _player(words: Words, told: Json) -> Iterator[Child]:
    files, name = told["files"], told["job"]
    if AUDIO not in files:
        return
    cover = tag("img", src=file_url(name, TITLE_PICTURE), alt="", class_="shown") if TITLE_PICTURE in files else None
    caption = tag("p", tag("span", dir="auto"), class_="caption", aria_hidden="true", hidden=True)
    yield tag("div", cover, caption, class_="stage")
    track = None
    if VTT in files:
        language, label = told["language"] or None, words("captions")
        track = tag("track", kind="captions", src=file_url(name, VTT), srclang=language, label=label, default=True)
    sound = tag(
        "audio", track, src=file_url(name, AUDIO), controls=True, preload="metadata", aria_label=words("listen")
    )
    button = tag("button", words("captions"), type="button", class_="key", aria_pressed="true", hidden=True)
    yield tag("div", sound, button if track else None, class_="controls")
    saves = [
        tag("a", words(key), href=file_url(name, path), download=f"{name}.{path.partition('.')[2]}")
        for path, key in _SAVES
        if path in files
    ]
    yield tag("p", words("save"), ": ", dotted(*saves), class_="saves")


def _script(words: Words, told: Json) -> Iterator[Child]:
    if not told["scenes"]:
        return
    yield title(words, "script", "script")
    yield tag("ol", *_scenes(words, told), class_="scenes")


def _scenes(words: Words, told: Json) -> Iterator[Html]:
    name, starts_s, language = told["job"], told["starts_s"], told["language"] or None
    for number, scene in enumerate(told["scenes"], 1):
        path = f"images/{number:03}.png"
        start_s = starts_s[number - 1] if number <= len(starts_s) else None
        picture = None
        if path in told["files"]:
            alt = scene["picture"] or words("picture", n=number)
            picture = tag("img", src=file_url(name, path), alt=alt, loading="lazy")
        head = words("scene", n=number)
        yield tag(
            "li",
            picture,
            tag("p", tag("b", head), " " if start_s is None else f" {_clock(start_s)}", class_="facts", data_jump=head),
            tag("p", scene["narration"], lang=language, dir="auto"),
            data_start=start_s,
        )


def _history(words: Words, told: Json) -> Html:
    rows: list[tuple[str, Child]] = [
        ("job", tag("code", told["job"])),
        ("place", tag("code", told["path"])),
        ("source", tag("bdi", told["source"]) if told.get("source") else None),
        ("accepted", time(told.get("accepted", ""))),
        ("next_try", time(told.get("not_before", ""))),
        *((stage, _ended(words, told, stage)) for stage in Stage),
    ]
    return tag("dl", *(tag("div", tag("dt", words(key)), tag("dd", value)) for key, value in rows if value))


def _ended(words: Words, told: Json, stage: Stage) -> Html | None:
    """Return when a stage's last product was made, how long they took, and what went wrong on the way."""
    at = max((each["at"] for each in told["products"] if each["stage"] == stage), default="")
    seconds, attempts, crashes = told["seconds"].get(stage), told["attempts"].get(stage), told["crashes"].get(stage)
    if not (at or attempts or crashes):
        return None
    return dotted(
        time(at),
        words("took", time=words.span(seconds)) if seconds else None,
        words.many("attempts", attempts) if attempts else None,
        words.many("crashes", crashes) if crashes else None,
    )


def _files(words: Words, told: Json) -> Iterator[Child]:
    products: Sequence[Json] = told["products"]
    if not products:
        return
    yield title(words, "files", "files")
    head = tag("tr", *(tag("th", words(key), scope="col") for key in ("file", "size", "made_by", "seconds", "made_at")))
    rows = [
        tag(
            "tr",
            tag("th", tag("a", each["path"], href=file_url(told["job"], each["path"])), scope="row")
            if each["shown"]
            else tag("th", each["path"], scope="row"),
            tag("td", words.size(each["bytes"])),
            tag("td", dotted(*(f"{key} {value}" for key, value in each["by"].items()))),
            tag("td", words.span(each["seconds"])),
            tag("td", time(each["at"])),
        )
        for each in products
    ]
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    manifest = tag("a", "manifest.json", href=file_url(told["job"], "manifest.json"))
    before, _, after = words("digests").partition("{file}")
    yield tag("p", before, manifest, after, class_="quiet")
    yield tag("div", table, class_="wide", tabindex="0", role="region", aria_labelledby="files-title")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
