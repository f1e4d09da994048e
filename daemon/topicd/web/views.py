"""The pages as markup: values in, HTML out.

Owns what is on the overview, a job's page and the gallery. Promises pages that make sense without their script and
without colours, with headings and landmarks for whoever listens to them. Pure: no I/O.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from topicd.states import Aside, Stage
from topicd.web.html import Child, Html, join, tag
from topicd.web.texts import LANGUAGES, Words

Json = dict[str, Any]

SECTIONS: Final = ("summary", "lanes", "failures", "servers", "house")
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600


def document(words: Words, title: str, *body: Child, here: str, refresh: str = "") -> str:
    """Return a whole page.

    Args:
        words: in which language.
        title: of the page.
        body: of its main part.
        here: its path, for the link to the other language.
        refresh: where its events come from; empty for a page that stays as it is.
    """
    other = next(language for language in LANGUAGES if language != words.language)
    links = [_link(words, "/", "overview", here), _link(words, "/gallery", "gallery", here)]
    switch = tag("a", words("other_language"), href=f"{here}?lang={other}", hreflang=other, lang=other)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · topicd"),
        tag("link", rel="stylesheet", href="/static/page.css"),
        tag("link", rel="icon", href="/static/icon.svg", type="image/svg+xml"),
        tag("script", src="/static/page.js", defer=True),
    )
    top = tag(
        "header",
        tag("a", words("skip"), href="#main", class_="skip"),
        tag("p", tag("a", "topicd", href=f"/?lang={words.language}"), class_="brand"),
        tag("nav", *links, switch, aria_label="topicd"),
    )
    main = tag("main", tag("h1", title), *body, id="main", tabindex="-1", data_events=refresh or None)
    page = tag("html", head, tag("body", top, main), lang=words.tag)
    return f"<!doctype html>\n{page}\n"


def overview(words: Words, told: Json) -> Mapping[str, Html]:
    """Return the overview's sections by their ids."""
    return {
        "summary": _summary(words, told),
        "lanes": join(*(_lane(words, told, stage) for stage in Stage)),
        "failures": _failures(words, told),
        "servers": _servers(words, told),
        "house": _house(words, told),
    }


def sections(words: Words, parts: Mapping[str, Html]) -> Html:
    """Return the sections as the page has them."""
    del words
    return join(*(tag("section", parts[name], id=name, class_=name) for name in SECTIONS))


def job(words: Words, told: Json, story: Json) -> Html:
    """Return a job's page: history, sound, script, pictures, files."""
    name = told["job"]
    return join(
        _command(words, told),
        tag("section", tag("h2", words("history")), _history(words, told), id="history"),
        _player(words, name, story),
        _script(words, name, story),
        _products(words, name, told["products"]),
    )


def gallery(words: Words, told: Json) -> Html:
    """Return a page of finished jobs."""
    cards = [_card(words, each) for each in told["jobs"]]
    pages = tag("p", words("page", n=told["page"], of=told["pages"]))
    older = _page_link(words, "older", told["page"] + 1) if told["page"] < told["pages"] else None
    newer = _page_link(words, "newer", told["page"] - 1) if told["page"] > 1 else None
    return join(
        tag("ul", *cards, class_="cards") if cards else tag("p", words("nothing"), class_="quiet"),
        tag("nav", newer, pages, older, class_="pages", aria_label=words("gallery")),
    )


def _link(words: Words, path: str, key: str, here: str) -> Html:
    return tag("a", words(key), href=f"{path}?lang={words.language}", aria_current="page" if here == path else None)


def _page_link(words: Words, key: str, number: int) -> Html:
    return tag("a", words(key), href=f"/gallery?page={number}&lang={words.language}", rel="nofollow")


def _job_link(words: Words, name: str, text: str = "") -> Html:
    return tag("a", text or name, href=f"/jobs/{quote(name)}?lang={words.language}", id=f"to-{name}")


def _summary(words: Words, told: Json) -> Html:
    ready = told["ready"] or {"ok": False, "why": []}
    state = tag(
        "span", words("ready" if ready["ok"] else "not_ready"), class_="badge good" if ready["ok"] else "badge bad"
    )
    live = tag("span", words("live"), id="live", role="status", data_stale=words("stale"), hidden=True)
    counts = [
        tag("li", tag("strong", told["jobs"].get(place, 0)), " ", words(place), class_=place)
        for place in (*Stage, *Aside, "output")
    ]
    whys = [tag("li", why) for why in (*ready["why"], *told["warnings"])]
    return join(
        tag("p", state, " ", live),
        tag("ul", *counts, class_="counts"),
        tag("ul", *whys, class_="whys") if whys else None,
    )


def _lane(words: Words, told: Json, stage: Stage) -> Html:
    rows = [each for each in told["open"] if each["stage"] == stage]
    rest = told["jobs"].get(stage, 0) - len(rows)
    return tag(
        "section",
        tag("h2", words(stage), " ", tag("span", told["jobs"].get(stage, 0), class_="count")),
        tag("ul", *(_open_job(words, row) for row in rows), class_="jobs")
        if rows
        else tag("p", words("nothing"), class_="quiet"),
        tag("p", words("more", n=rest), class_="quiet") if rest > 0 else None,
        class_="lane",
        aria_label=words(stage),
    )


def _open_job(words: Words, row: Json) -> Html:
    name, is_working = row["job"], row["state"] == "working"
    units = words("units", n=row["n"], of=row["of"]) if row["of"] and (row["n"] or is_working) else None
    left = row.get("seconds_left")
    told = [words(row["state"]), units, words("left", time=_span(left)) if left else None]
    bar = tag("progress", units, value=row["n"], max=row["of"], aria_label=units) if units and is_working else None
    return tag(
        "li",
        _job_link(words, name, row["source"]),
        tag("p", name, class_="quiet"),
        tag("p", " · ".join(filter(None, told)), class_=f"state {row['state']}"),
        bar,
        _trouble(words, row["error"], "", row["next_try"]) if row["error"] else None,
    )


def _trouble(words: Words, message: str, hint: str, next_try: str = "") -> Html:
    return tag(
        "div",
        tag("p", message),
        tag("p", tag("span", words("hint"), ": ", class_="label"), hint) if hint else None,
        tag("p", words("next_try", time=""), _time(next_try), class_="quiet") if next_try else None,
        class_="trouble",
    )


def _failures(words: Words, told: Json) -> Html:
    failed = list(reversed(told["failed"]))
    rows = [
        tag(
            "li",
            _job_link(words, each["job"]),
            tag("p", words(each["stage"]), " ", each["unit"], " ", _time(each["at"]), class_="quiet"),
            _trouble(words, each["message"], each["hint"]),
        )
        for each in failed
    ]
    return join(
        tag("h2", words("errors")),
        tag("ul", *rows, class_="jobs") if rows else tag("p", words("nothing"), class_="quiet"),
    )


def _servers(words: Words, told: Json) -> Html:
    rows = [
        tag(
            "li",
            tag("strong", each["server"]),
            " ",
            tag("span", words(each["state"]), class_="badge good" if each["state"] == "closed" else "badge bad"),
            tag(
                "p",
                words(each["stage"]),
                " · ",
                words("calls", calls=each["calls"], waiting=each["waiting"]),
                class_="quiet",
            ),
            tag("p", words("since", time=""), _time(each["since"]), ": ", each["trouble"]) if each["since"] else None,
            tag("p", each["note"], class_="quiet") if each["note"] else None,
        )
        for each in told["servers"]
    ]
    return join(
        tag("h2", words("servers")), tag("ul", *rows) if rows else tag("p", words("no_servers"), class_="quiet")
    )


def _house(words: Words, told: Json) -> Html:
    given = told["input"]
    ignored = [
        tag("li", each["name"], " ", tag("span", words("ignored", kind=each["kind"]), class_="quiet"))
        for each in given["ignored"]
    ]
    fetched = [tag("li", each["name"], ": ", _share(each)) for each in told["downloads"]]
    free = told["free_bytes"]
    return join(
        tag("h2", words("input"), " ", tag("span", given["waiting"], class_="count")),
        tag("p", words("drop", folder=f"{told['home']}/input"), class_="quiet"),
        tag("ul", *ignored) if ignored else None,
        tag("h2", words("downloads")) if fetched else None,
        tag("ul", *fetched) if fetched else None,
        tag("h2", words("disk")),
        tag("p", size(free) if free is not None else "?"),
    )


def _share(each: Json) -> str:
    total = each["total"]
    share = f"{100 * each['have'] // total} % · {size(total)}" if total else size(each["have"])
    return f"{share} · {size(each['rate'])}/s {each['note']}".rstrip()


def _command(words: Words, told: Json) -> Html | None:
    verb = {Aside.FAILED: "retry", Aside.HELD: "release"}.get(told["place"])
    if verb is None:
        return None
    reason = told.get("reason") or {}
    return join(
        _trouble(words, reason.get("message", ""), reason.get("hint", "")) if reason else None,
        tag("p", words(verb), " ", tag("code", f"topicd {verb} {told['job']}")),
    )


def _history(words: Words, told: Json) -> Html:
    error = told.get("last_error") or {}
    rows: list[tuple[str, Child]] = [
        ("place", f"{words(told['place'])} ({words(told.get('state', 'damaged'))})"),
        ("source", told.get("source")),
        ("accepted", _time(told["accepted"]) if told.get("accepted") else None),
        ("attempts", _counts(words, told.get("attempts"))),
        ("crashes", _counts(words, told.get("crashes"))),
        ("seconds", _counts(words, told.get("seconds"))),
        ("error", " ".join(filter(None, [error.get("message"), error.get("hint")])) or told.get("damaged")),
    ]
    return tag("dl", *(join(tag("dt", words(key)), tag("dd", value)) for key, value in rows if value))


def _counts(words: Words, counts: Mapping[str, float] | None) -> str:
    return ", ".join(f"{words(stage)} {count:g}" for stage, count in (counts or {}).items())


def _player(words: Words, name: str, story: Json) -> Html | None:
    if "audio.wav" not in story["files"]:
        return None
    captions = tag(
        "track",
        kind="captions",
        src=_file(name, "captions.vtt"),
        srclang=story["language"],
        label=words("captions"),
        default=True,
    )
    cover = _file(name, "images/title.png") if "images/title.png" in story["files"] else None
    video = tag(
        "video",
        captions if "captions.vtt" in story["files"] else None,
        src=_file(name, "audio.wav"),
        controls=True,
        preload="metadata",
        poster=cover,
        aria_label=words("listen"),
    )
    return tag("section", tag("h2", words("listen")), video, id="listen")


def _script(words: Words, name: str, story: Json) -> Html | None:
    if not story["scenes"]:
        return None
    rows = []
    for number, scene in enumerate(story["scenes"], 1):
        path = f"images/{number:03}.png"
        alt = words("picture_of", n=number, words=scene["picture"])
        picture = tag("img", src=_file(name, path), alt=alt, loading="lazy") if path in story["files"] else None
        rows.append(tag("li", picture, tag("p", scene["narration"], lang=story["language"])))
    return tag("section", tag("h2", words("script")), tag("ol", *rows, class_="scenes"), id="script")


def _products(words: Words, name: str, products: Sequence[Json]) -> Html | None:
    if not products:
        return None
    head = tag("tr", *(tag("th", words(key), scope="col") for key in ("file", "size", "made_by", "seconds")))
    rows = [
        tag(
            "tr",
            tag("td", tag("a", each["path"], href=_file(name, each["path"])) if each["shown"] else each["path"]),
            tag("td", size(each["bytes"])),
            tag("td", ", ".join(f"{key} {value}" for key, value in each["by"].items())),
            tag("td", f"{each['seconds']:.1f}"),
        )
        for each in products
    ]
    table = tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", *rows)),
        class_="wide",
        tabindex="0",
        role="region",
        aria_label=words("files"),
    )
    return tag("section", tag("h2", words("files")), table, id="files")


def _card(words: Words, each: Json) -> Html:
    picture = tag("img", src=_file(each["job"], each["picture"]), alt="", loading="lazy") if each["picture"] else None
    return tag("li", picture, _job_link(words, each["job"], each["title"]), tag("p", each["job"], class_="quiet"))


def _file(name: str, path: str) -> str:
    return f"/jobs/{quote(name)}/files/{path}"


def _time(at: str) -> Html | None:
    return tag("time", at.replace("T", " ").split(".")[0], datetime=at) if at else None


def _span(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE_S:.0f} min" if seconds < _HOUR_S else f"{seconds / _HOUR_S:.1f} h"


def size(count: float) -> str:
    """Return a number of bytes for a person."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"
