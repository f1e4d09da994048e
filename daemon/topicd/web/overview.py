"""The overview as markup: what waits, runs and failed, and what it all stands on.

Owns what is on it. Promises that it makes sense without its script and without colours. Pure: no I/O.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from topicd.states import Aside, Stage
from topicd.web.frame import ENGLISH, badge, document, dotted, job_link, panel, time, title, trouble
from topicd.web.html import Child, Html, join, tag
from topicd.web.texts import Words

Json = dict[str, Any]
_BAR_WIDTH, _BAR_GAP, _BARS_HEIGHT = 3, 1, 24
_SERVER_KINDS: Final[Mapping[str, str]] = {"closed": "good", "half-open": "wait"}


def overview(words: Words, told: Json, seen: str) -> str:
    """Return the page.

    Args:
        words: in which language.
        told: what `showing` saw.
        seen: a name for just that, which the events use too.
    """
    return document(
        words,
        words("overview"),
        panel("headline", *_headline(words, told), label=words("overview")),
        panel("tiles", tag("ul", *_tiles(words, told)), label=words("now")),
        panel("lanes", *(_lane(words, stage, told["lanes"][stage]) for stage in Stage), label=words("steps")),
        tag("div", *_side(words, told), class_="side"),
        here="/",
        watches=True,
        seen=seen,
    )


def _headline(words: Words, told: Json) -> Iterator[Child]:
    ready, working, waiting = told["ready"], 0, 0
    for lane in told["lanes"].values():
        working += lane["working"]
        waiting += lane["jobs"] - lane["working"]
    if working:
        line = words.many("working", working)
        line = words("plus_waiting", working=line, n=words.number(waiting)) if waiting else line
    else:
        line = words.many("waiting", waiting) if waiting else words("at_rest")
    yield badge(words("ready"), "good") if ready["ok"] else badge(words("not_ready"), "bad")
    yield tag("h1", line)
    if not (working or waiting or told["counts"]["output"]):
        yield tag("p", words("invite", folder=told["input_dir"]), class_="quiet")
    for key, lines in (("why", ready["why"]), ("warnings", told["warnings"])):
        if lines:
            rows = [tag("li", line, lang=ENGLISH, dir="auto") for line in lines]
            yield tag("div", tag("p", tag("b", words(key))), tag("ul", *rows), class_=f"notice {key}")


def _tiles(words: Words, told: Json) -> Iterator[Html]:
    counts, lately = told["counts"], told["lately"]
    yield _tile(words, "finished", words.number(counts["output"]), link=words.link("/gallery"))
    yield _tile(words, "failed", words.number(counts[Aside.FAILED]), kind="bad" if counts[Aside.FAILED] else "")
    yield _tile(words, "held", words.number(counts[Aside.HELD]))
    yield _tile(words, "input", words.number(told["input"]["waiting"]))
    free = told["free_bytes"]
    yield _tile(words, "disk", "?" if free is None else words.size(free))
    hour = words("hour", done=words.number(lately["done"]), units=words.number(sum(lately["units"])))
    yield tag(
        "li",
        tag("span", words("last_hour"), class_="key"),
        _bars(words, lately["units"]),
        tag("span", hour, class_="quiet"),
        class_="tile hour",
    )


def _tile(words: Words, key: str, value: str, *, kind: str = "", link: str = "") -> Html:
    told = (tag("span", words(key), class_="key"), " ", tag("strong", value))
    return tag("li", tag("a", *told, href=link) if link else join(*told), class_=f"tile {kind}".rstrip())


def _bars(words: Words, counts: Sequence[int]) -> Html:
    most, step = max(*counts, 1), _BAR_WIDTH + _BAR_GAP
    bars = [
        tag(
            "rect",
            x=number * step,
            y=_BARS_HEIGHT - height,
            width=_BAR_WIDTH,
            height=height,
            rx=1,
            class_="some" if count else None,
        )
        for number, count in enumerate(counts)
        for height in (max(2, round(_BARS_HEIGHT * count / most)),)
    ]
    box = f"0 0 {len(counts) * step - _BAR_GAP} {_BARS_HEIGHT}"
    return tag("svg", *bars, viewBox=box, preserveAspectRatio="none", role="img", aria_label=words("hour_bars"))


def _lane(words: Words, stage: Stage, lane: Json) -> Html:
    rows = lane["rows"]
    waiting, rest = lane["jobs"] - lane["working"], lane["jobs"] - len(rows)
    count = words("lane_count", working=words.number(lane["working"]), waiting=words.number(waiting))
    maker = tag("p", words("by", maker=lane["maker"]), class_="quiet") if lane["maker"] else None
    return tag(
        "section",
        tag("div", tag("h2", words(stage), id=f"lane-{stage}"), tag("span", count, class_="quiet"), class_="lane-head"),
        maker,
        tag("ul", *(_open_job(words, row) for row in rows), class_="jobs") if rows else None,
        None if rows else tag("p", words("lane_empty"), class_="empty"),
        tag("p", words("more", n=words.number(rest)), class_="quiet") if rest > 0 else None,
        class_="lane busy" if lane["working"] else "lane",
        aria_labelledby=f"lane-{stage}",
    )


def _open_job(words: Words, row: Json) -> Html:
    name, is_working, left = row["job"], row["state"] == "working", row["seconds_left"]
    units = words("units", n=row["n"], of=row["of"]) if row["of"] and (row["n"] or is_working) else None
    bar = None
    if units and is_working:
        label = words("progress_of", name=row["title"])
        bar = tag("progress", units, value=row["n"], max=row["of"], aria_label=label)
    return tag(
        "li",
        tag("p", job_link(words, name, row["title"]), class_="name"),
        tag(
            "p",
            tag("span", words(row["state"]), class_=f"state {row['state']}"),
            join(" · ", units) if units else None,
            join(" · ", words.left(left)) if left is not None else None,
            class_="facts",
        ),
        bar,
        trouble(words, {**row, "message": row["error"]}) if row["error"] else None,
        class_=row["state"],
    )


def _failures(words: Words, failed: Sequence[Json]) -> Html:
    if not failed:
        return tag("p", words("no_errors"), class_="empty")
    rows = []
    for each in failed:
        facts = dotted(words(each["stage"]), each["unit"] or None, time(each["at"], ago=True))
        name = tag("p", job_link(words, each["job"], each["title"]), class_="name")
        rows.append(tag("li", name, tag("p", facts, class_="facts"), trouble(words, each)))
    return tag("ul", *rows, class_="jobs")


def _side(words: Words, told: Json) -> Iterator[Html]:
    yield panel("failures", title(words, "failures", "errors"), _failures(words, told["failed"]))
    yield panel("servers", title(words, "servers", "servers"), _servers(words, told["servers"]))
    fetched = [_download(words, each) for each in told["downloads"]]
    yield panel("downloads", *([title(words, "downloads", "downloads"), tag("ul", *fetched)] if fetched else []))
    yield panel("house", title(words, "house", "input_dir"), *_house(words, told))


def _servers(words: Words, servers: Sequence[Json]) -> Html:
    if not servers:
        return tag("p", words("no_servers"), class_="empty")
    return tag("ul", *(_server(words, each) for each in servers), class_="servers")


def _server(words: Words, each: Json) -> Html:
    state = badge(words(each["state"]), _SERVER_KINDS.get(each["state"], "bad"))
    calls = words("calls", calls=each["calls"], waiting=each["waiting"])
    waited = words("waited", time=words.span(each["waited_s"])) if each.get("waited_s") else None
    since = None
    if each["since"]:
        words_of_it = tag("span", each["trouble"], lang=ENGLISH, dir="auto")
        since = tag("p", words("since"), " ", time(each["since"], ago=True), ": ", words_of_it)
    return tag(
        "li",
        tag("p", tag("strong", tag("bdi", each["server"])), " ", state, class_="name"),
        tag("p", dotted(words(each["stage"]), calls, waited), class_="facts"),
        since,
        tag("p", each["note"], class_="facts", lang=ENGLISH, dir="auto") if each["note"] else None,
    )


def _download(words: Words, each: Json) -> Html:
    have, total = each["have"], each["total"]
    size = dotted(
        f"{words.size(have)} / {words.size(total)}" if total else words.size(have),
        f"{words.size(each['rate'])}/s",
        tag("span", each["note"], lang=ENGLISH) if each["note"] else None,
    )
    bar = tag("progress", value=have, max=total, aria_label=each["name"]) if total else None
    return tag("li", tag("p", tag("bdi", each["name"]), class_="name"), tag("p", size, class_="facts"), bar)


def _house(words: Words, told: Json) -> Iterator[Child]:
    given, watcher = told["input"], told["watcher"]
    yield tag("p", tag("code", told["input_dir"]))
    told_of = [words("input_waiting", n=words.number(given["waiting"]))]
    if watcher:
        told_of.append(words("watching", mode=words(watcher["mode"])))
    yield tag("p", dotted(*told_of), class_="facts")
    if given["error"]:
        yield trouble(words, {"message": given["error"]})
    ignored = [
        tag("li", tag("bdi", each["name"]), " ", tag("span", words("ignored", kind=each["kind"]), class_="quiet"))
        for each in given["ignored"]
    ]
    if ignored:
        yield tag("ul", *ignored, class_="ignored")
    yield tag("p", words("version", version=told["version"]), class_="quiet")
