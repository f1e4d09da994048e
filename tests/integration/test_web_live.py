"""The events that keep a page fresh: what they tell, whom they wake, and that one look serves all."""

import asyncio
from contextlib import suppress

import pytest

from rig.site import DONE, FAILED, LIMIT_S, Site, news, until
from rig.tree import failed, finished
from topicd.telemetry.events import Event
from topicd.web.live import ALIVE_S, WATCHERS_MAX
from topicd.web.pages import THREADS_MAX
from topicd.web.pulse import MINUTES, Pulse

NEVER_S = 3600.0
only_at_a_change = pytest.mark.parametrize("site", [{"still_s": NEVER_S}], indirect=True, ids=["still"])
"""However long a test takes, nothing but a change makes it look again."""


@only_at_a_change
async def test_a_change_is_told_at_once(site: Site) -> None:
    async with site.watching() as lines:
        first = await news(lines)
        assert f'data-seen="{first}"' in (await site.get("/")).text
        finished(site.spool.output, DONE)
        site.finish_something()
        second = await news(lines)
        assert f'data-seen="{second}"' in (await site.get("/")).text
        assert "Finished 1" in await site.words("/")


async def test_what_is_moved_by_hand_is_told_too(site: Site) -> None:
    async with site.watching() as lines:
        await news(lines)
        failed(site.spool.place("failed"), FAILED, "Nothing came.")
        await news(lines)
        assert "Failed 1" in await site.words("/")


@only_at_a_change
async def test_all_who_watch_share_one_look_and_nobody_looks_for_nobody(site: Site) -> None:
    async with site.watching() as one, site.watching() as other:
        assert await news(one) == await news(other)
        await asyncio.gather(*(site.get("/") for _ in range(10)))
        assert site.shown.looks == 1
        assert len(site.pulse._listeners) == 1
    failed(site.spool.place("failed"), FAILED, "")  # that a connection is gone is noticed when it is told something
    site.finish_something()
    await until(lambda: not site.pulse._listeners, "nobody listens any more", ALIVE_S + LIMIT_S)


async def test_who_goes_away_while_it_is_told_is_no_bug(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: site.shown.looks, "it watches")
    writer.transport.abort()
    number = 0

    def nobody_listens() -> bool:
        nonlocal number
        number += 1
        failed(site.spool.place("failed"), f"20261127-{number:06}-000000-x", "")
        site.finish_something()
        return not site.pulse._listeners

    await until(nobody_listens, "it is let go")
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "WARNING"}]


async def test_who_watches_is_bounded(site: Site) -> None:
    opened = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(WATCHERS_MAX + 1)]
    heads = []
    for reader, writer in opened:
        writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        heads.append(await asyncio.wait_for(reader.readline(), LIMIT_S))
    assert [head.split()[1] for head in heads] == [b"200"] * WATCHERS_MAX + [b"503"]
    for _, writer in opened:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("site", [{"stop_timeout_s": NEVER_S}], indirect=True, ids=["patient"])
async def test_a_stop_does_not_wait_for_who_watches(site: Site) -> None:
    async with site.watching() as lines:
        await news(lines)
        async with asyncio.timeout(LIMIT_S):
            await site.server.stop()
        with pytest.raises(EOFError):
            await news(lines)


@pytest.mark.parametrize("site", [{"read_timeout_s": 4.0}], indirect=True, ids=["hasty"])  # all have asked by then
async def test_a_disk_that_hangs_costs_only_who_looks(site: Site) -> None:
    site.shown.may_answer.clear()
    try:
        answers = await asyncio.gather(*(site.get("/") for _ in range(THREADS_MAX * 3)))
        assert {answer.status_code for answer in answers} == {503}
        assert "The disk does not answer." in answers[0].text
        assert site.shown.looks == 1, "they shared it"
        assert (await site.get("/healthz")).status_code == 200
    finally:
        site.shown.may_answer.set()
    assert (await site.get("/")).status_code == 200


async def test_a_look_that_fails_is_made_again(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    place = site.spool.place("failed")
    async with site.watching() as lines:
        await news(lines)
        place.rename(place.with_name("aside"))
        place.write_text("no directory")
        site.finish_something()
        await until(lambda: "cannot be looked at" in caplog.text, "it is said")
        place.unlink()
        place.with_name("aside").rename(place)
        failed(place, FAILED, "")
        await news(lines)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_last_hour_is_the_last_hour() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    for minute in range(90):
        clock.now_s = minute * 60.0
        pulse.see(Event("job.done", {}))
        pulse.see(Event("unit.finished", {"stage": "audio", "seconds": float(minute)}))
    assert (pulse.lately().done, pulse.lately().units) == (MINUTES, (1,) * MINUTES)
    assert pulse.unit_s("audio") == 73.5
    assert pulse.unit_s("images") is None
    clock.now_s += 30 * 60.0
    assert pulse.lately().units == (1,) * 30 + (0,) * 30
    clock.now_s += 3600.0
    assert pulse.lately().done == 0
