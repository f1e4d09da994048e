"""The gallery as markup: finished folders, the newest first, a page at a time. Pure: no I/O."""

from typing import Any

from topicd.web.frame import document, dotted, file_url, job_link, time
from topicd.web.html import Html, tag
from topicd.web.texts import Words

Json = dict[str, Any]


def gallery(words: Words, told: Json) -> str:
    """Return a page of finished jobs."""
    number, pages = told["page"], told["pages"]
    cards = [_card(words, each) for each in told["jobs"]]
    count = words.many("gallery", told["count"]) if cards else words("gallery_empty")
    turn = [
        _turn(words, "newer", number - 1, "prev") if number > 1 else None,
        tag("span", words("page", n=words.number(number), of=words.number(pages))),
        _turn(words, "older", number + 1, "next") if number < pages else None,
    ]
    return document(
        words,
        words("gallery"),
        tag("section", tag("h1", words("gallery")), tag("p", count, class_="quiet"), id="headline"),
        tag("ul", *cards, class_="cards") if cards else None,
        tag("nav", *turn, class_="pages", aria_label=words("gallery")) if pages > 1 else None,
        here="/gallery" if number == 1 else f"/gallery?page={number}",
    )


def _turn(words: Words, key: str, number: int, rel: str) -> Html:
    return tag("a", words(key), href=words.link("/gallery", page=number), rel=rel)


def _card(words: Words, each: Json) -> Html:
    picture = each["picture"]
    image = (
        tag("img", src=file_url(each["job"], picture), alt="", loading="lazy", decoding="async") if picture else None
    )
    facts = dotted(words.many("scenes", each["scenes"]) if each["scenes"] else None, time(each["accepted"]))
    return tag(
        "li",
        tag("div", image, class_="thumb"),
        tag("p", job_link(words, each["job"], each["title"]), class_="name", lang=each["language"] or None),
        tag("p", facts, class_="facts"),
    )
