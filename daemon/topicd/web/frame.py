"""What all pages have in common: the frame around them, links, times, troubles.

Owns how a page begins and ends. Promises landmarks, one first heading, and a way past the navigation for whoever uses
the keyboard. Pure: no I/O.
"""

from typing import Any, Final
from urllib.parse import quote

from topicd.web import assets
from topicd.web.html import Child, Html, join, tag
from topicd.web.texts import LANGUAGES, Words

Json = dict[str, Any]
ENGLISH: Final = "en"
"""What the daemon itself says of faults is in English, whatever the page's language."""


def document(words: Words, title: str, *body: Child, here: str, watches: bool = False, seen: str = "") -> str:
    """Return a whole page.

    Args:
        words: in which language.
        title: of the page, for the browser; the body has its own heading.
        body: of its main part.
        here: its address, for the link to the other language.
        watches: whether it is kept fresh by the events.
        seen: what it shows, as the events name it.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1, viewport-fit=cover"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="theme-color", content="#f7f6f3", media="(prefers-color-scheme: light)"),
        tag("meta", name="theme-color", content="#131416", media="(prefers-color-scheme: dark)"),
        tag("title", f"{title} · topicd"),
        tag("link", rel="stylesheet", href=assets.url("page.css")),
        tag("link", rel="icon", href=assets.url("icon.svg"), type="image/svg+xml"),
        tag("script", src=assets.url("page.js"), defer=True),
    )
    other = next(language for language in LANGUAGES if language != words.language)
    top = tag(
        "header",
        tag("a", words("skip"), href="#main", class_="skip"),
        tag("a", tag("span", class_="mark", aria_hidden="true"), "topicd", href=words.link("/"), class_="brand"),
        tag("nav", _link(words, "/", "overview", here), _link(words, "/gallery", "gallery", here), aria_label="topicd"),
        tag("span", words("live"), id="live", data_stale=words("stale"), hidden=True) if watches else None,
        tag(
            "a",
            words("other_language"),
            href=Words(other, asked=True).link(here),
            hreflang=other,
            lang=other,
            class_="language",
        ),
    )
    live = {"data_events": "/events" if watches else None, "data_seen": seen, "data_now": words("this_minute")}
    main = tag("main", *body, id="main", tabindex="-1", **live)
    said = tag("p", id="said", role="status", class_="unseen")
    page = tag("html", head, tag("body", top, main, said), lang=words.tag)
    return f"<!doctype html>\n{page}\n"


def panel(name: str, *children: Child, live: bool = True, label: str | None = None, kind: str = "") -> Html:
    """Return a part of a page; a live one is put in place of its old self when the page is fresh again."""
    shown = [child for child in children if child]
    return tag(
        "section",
        *shown,
        id=name,
        class_=kind or None,
        data_live=live,
        hidden=not shown,
        aria_label=label,
        aria_labelledby=None if label else f"{name}-title",
    )


def title(words: Words, name: str, key: str, *more: Child) -> Html:
    """Return the heading of a panel."""
    return tag("h2", words(key), *more, id=f"{name}-title")


def job_link(words: Words, name: str, text: str = "") -> Html:
    """Return a link to a job's page."""
    return tag("a", tag("bdi", text or name), href=words.link(f"/jobs/{_quoted(name)}"), id=f"to-{_quoted(name)}")


def file_url(name: str, path: str) -> str:
    """Return the address of a job's file."""
    return f"/jobs/{_quoted(name)}/files/{path}"


def trouble(words: Words, told: Json) -> Html:
    """Return an error in the page's language, where its cause is known in it, and as the daemon told it; next try."""
    message, hint, next_try = told["message"], told.get("hint"), told.get("next_try")
    known, advice = words.fault(told.get("cause", ""))
    original = " · ".join(each for each in (message, hint) if each)
    said = [
        tag("p", known) if known else tag("p", message, lang=ENGLISH, dir="auto"),
        _advice(words, tag("span", advice)) if advice else None,
        _advice(words, tag("span", hint, lang=ENGLISH, dir="auto")) if hint and not known else None,
        tag("p", tag("b", words("next_try")), " ", time(next_try, ago=True), class_="hint") if next_try else None,
        tag("p", original, class_="original", lang=ENGLISH, dir="auto") if known else None,
    ]
    return tag("div", *said, class_="trouble")


def _advice(words: Words, advice: Html) -> Html:
    return tag("p", tag("b", words("hint")), " ", advice, class_="hint")


def time(at: str, *, ago: bool = False) -> Html | None:
    """Return a moment; the page's script shows it by the reader's clock, or how long ago it was."""
    return tag("time", f"{at[:19].replace('T', ' ')} UTC", datetime=at, data_ago=ago) if at else None


def badge(text: str, kind: str) -> Html:
    """Return a word on a colour, with a dot."""
    return tag("span", text, class_=f"badge {kind}")


def dotted(*parts: Child) -> Html:
    """Return what is there of the parts, with dots between them."""
    there = [part for part in parts if part is not None and part != ""]
    return join(*(join(" · ", part) if number else part for number, part in enumerate(there)))


def _link(words: Words, path: str, key: str, here: str) -> Html:
    is_here = here.partition("?")[0] == path
    return tag("a", words(key), href=words.link(path), aria_current="page" if is_here else None)


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="surrogateescape")
