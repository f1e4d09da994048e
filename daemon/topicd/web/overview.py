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
_AWAITED: Final[Mapping[str, str]] = {
    Stage.SCRIPTS: "waits_scripts",
    Stage.AUDIO: "waits_audio",
    Stage.IMAGES: "waits_images",
}
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
    dropped = told["input"]["waiting"]
    awaited = _awaited(told) if not working and (waiting or dropped) else ""
    counted = {"working": working, "waiting": waiting, "to_take": dropped}
    lines = [words.many(key, count) for key, count in counted.items() if count]
    line = lines[0] if lines else words("at_rest")
    if working and waiting:
        line = words("plus_waiting", working=line, n=words.number(waiting))
    yield badge(words("ready"), "good") if ready["ok"] else badge(words("not_ready"), "bad")
    yield tag("h1", words(awaited) if awaited else line)
    if awaited:
        yield tag("p", dotted(*lines), class_="quiet")
    elif not (lines or told["counts"]["output"]):
        yield tag("p", words("invite", folder=told["input_dir"]), class_="quiet")
    yield _whys(words, told)
    if told["warnings"]:
        rows = [tag("li", _told(words.warning(line), line)) for line in told["warnings"]]
        yield tag("div", tag("p", tag("b", words("warnings"))), tag("ul", *rows), class_="notice warnings")


def _awaited(told: Json) -> str:
    """Return the words' key for what it is that keeps all there is to do from being done; empty when nothing does."""
    if told["ready"]["ok"]:
        return ""
    waits = {each["what"] for each in told["waits"]}
    if "disk" in waits:
        return "waits_disk"
    stages = [stage for stage, key in _AWAITED.items() if stage in waits and told["lanes"][stage]["jobs"]]
    return _AWAITED[stages[0]] if stages else "waits_other"


def _whys(words: Words, told: Json) -> Html | None:
    if not told["ready"]["why"]:
        return None
    known = [
        tag("li", told_first, " ", advice)
        for told_first, advice in (words.fault(each["cause"]) for each in told["waits"])
        if told_first
    ]
    why = told["ready"]["why"]
    kind = "original" if len(known) == len(why) else None
    rows = [tag("li", line, lang=ENGLISH, dir="auto", class_=kind) for line in why]
    return tag("div", tag("p", tag("b", words("why"))), tag("ul", *known, *rows), class_="notice why")


def _tiles(words: Words, told: Json) -> Iterator[Html]:
    counts, lately = told["counts"], told["lately"]
    yield _tile(words, "finished", words.number(counts["output"]), link=words.link("/gallery"))
    failed, held = counts[Aside.FAILED], counts[Aside.HELD]
    yield _tile(words, "failed", words.number(failed), kind="bad" if failed else "", link="#failures" if failed else "")
    yield _tile(words, "held", words.number(held), link="#held" if held else "")
    yield _tile(words, "input", words.number(told["input"]["waiting"]))
    free = told["free_bytes"]
    yield _tile(words, "disk", "?" if free is None else words.size(free))
    hour = words("hour", done=words.number(lately["done"]), units=words.number(sum(lately["units"])))
    yield tag(
        "li",
        tag("span", words("last_hour" if lately["is_whole"] else "since_start"), class_="key"),
        _bars(words, lately["units"]),
        tag("span", hour, class_="quiet"),
        class_="tile hour",
    )


def _tile(words: Words, key: str, value: str, *, kind: str = "", link: str = "") -> Html:
    told = (tag("span", words(key), class_="key"), " ", tag("strong", value))
    body = tag("a", *told, href=link, id=f"tile-{key}") if link else join(*told)
    return tag("li", body, class_=f"tile {kind}".rstrip())


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


def _failures(words: Words, told: Json) -> Iterator[Html]:
    failed = told["failed"]
    if not failed:
        yield tag("p", words("no_errors"), class_="empty")
        return
    rows = []
    for each in failed:
        facts = dotted(words(each["stage"]), words.unit(each["unit"]) or None, time(each["at"], ago=True))
        rows.append(_aside(words, each, facts, trouble(words, each)))
    yield from _listed(words, rows, told["counts"][Aside.FAILED])


def _held(words: Words, told: Json) -> Iterator[Html]:
    if not told["held"]:
        return
    yield title(words, "held", "held_jobs")
    rows = []
    for each in told["held"]:
        source = tag("bdi", each["source"]) if each["source"] else None
        rows.append(_aside(words, each, dotted(source, time(each["accepted"], ago=True))))
    yield from _listed(words, rows, told["counts"][Aside.HELD])


def _aside(words: Words, each: Json, facts: Html, *more: Html) -> Html:
    name = tag("p", job_link(words, each["job"], each["title"]), class_="name")
    return tag("li", name, tag("p", facts, class_="facts"), *more)


def _listed(words: Words, rows: Sequence[Html], count: int) -> Iterator[Html]:
    yield tag("ul", *rows, class_="jobs")
    if count > len(rows):
        yield tag("p", words("more", n=words.number(count - len(rows))), class_="quiet")


def _side(words: Words, told: Json) -> Iterator[Html]:
    yield panel("failures", title(words, "failures", "errors"), *_failures(words, told))
    yield panel("held", *_held(words, told))
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
        known, _ = words.fault(each["cause"])
        original = tag("span", each["trouble"], lang=ENGLISH, dir="auto", class_="original" if known else None)
        since = tag("p", words("since"), " ", time(each["since"], ago=True), ": ", known and f"{known} ", original)
    return tag(
        "li",
        tag("p", tag("strong", tag("bdi", each["server"])), " ", state, class_="name"),
        tag("p", dotted(words(each["stage"]), calls, waited), class_="facts"),
        since,
        tag("p", _told(words.note(each["note"]), each["note"]), class_="facts") if each["note"] else None,
    )


def _download(words: Words, each: Json) -> Html:
    have, total = each["have"], each["total"]
    size = dotted(
        f"{words.size(have)} / {words.size(total)}" if total else words.size(have),
        f"{words.size(each['rate'])}/s",
        _told(words.note(each["note"]), each["note"]) if each["note"] else None,
    )
    bar = tag("progress", value=have, max=total, aria_label=each["name"]) if total else None
    return tag("li", tag("p", tag("bdi", each["name"]), class_="name"), tag("p", size, class_="facts"), bar)


def _told(known: str, original: str) -> Html:
    return tag("span", known) if known else tag("span", original, lang=ENGLISH, dir="auto")


def _house(words: Words, told: Json) -> Iterator[Child]:
    given, watcher = told["input"], told["watcher"]
    yield tag("p", tag("code", told["input_dir"]))
    told_of = [words("input_waiting", n=words.number(given["waiting"]))]
    if watcher:
        told_of.append(words("watching", mode=words(watcher["mode"])))
    yield tag("p", dotted(*told_of), class_="facts")
    if watcher and watcher["trouble"] and watcher["trouble"] not in told["ready"]["why"]:
        yield trouble(words, {**watcher, "message": watcher["trouble"]})
    if given["error"]:
        yield trouble(words, {"message": given["error"], "cause": "input_trouble"})
    ignored = [
        tag("li", tag("bdi", each["name"]), " ", tag("span", words("ignored", kind=kind), class_="quiet"))
        for each in given["ignored"]
        for kind in (words.kind(each["kind"]),)
    ]
    if ignored:
        yield tag("ul", *ignored, class_="ignored")
    yield tag("p", words("version", version=told["version"]), class_="quiet")
