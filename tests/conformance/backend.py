"""What holds for every backend, whatever it makes.

Owns the checks that the three suites share. A suite says how its Protocol is asked, what makes a product fit, and with
which requests; a test class adds the implementation as the fixture `backend`, which ends it afterwards.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Generic, TypeVar

from conformance.processes import children
from topicd.backends.base import Backend, Probe
from topicd.errors import Rejected, RetryLater, StorageTrouble, TopicdError, Unavailable, Unusable

CALL_S = 90.0
CANCEL_S = 5.0
MOMENTS_S = (0.0, 0.05, 0.4, 1.2)
MESSAGE_CHARS_MAX = 2_000
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
CAUSE = re.compile(r"[a-z][a-z0-9_]*")
USERINFO = re.compile(r"://[^/\s]*@")
KINDS = (RetryLater, Unavailable, Rejected, Unusable, StorageTrouble)
TEXTS = {
    "emoji": "The 🌊 rises 🌙 and falls, 👩‍👩‍👧 watch.",
    "quotes": "\"It's 'up'\", she said: «so» “it” \u2018is\u2019 `there` \\ \\\" ${title} $$ %s {0}.",
    "right to left": "لماذا يرتفع البحر؟ \u202eמדוע הים עולה\u202c",  # noqa: RUF001 - other scripts are meant
    "markup": "<b>Tides</b> & *stars* [x](http://x.test/?a=1&b=2) <script>alert(1)</script>\n## two\n```\ncode\n```",
    "numbers": "1/2 of 3.5 \u00d7 10⁻³ m² at 12:30, 50 % — €1,000.00; CO₂ & H₂O.",
    "one word": "Sea",
}
# No topic holds these and no script may; what speaks and draws must stand them all the same.
BROKEN_TEXTS = {
    "half an emoji": "The sea \ud83c rises.",
    "control characters": "The sea\x00 rises\x07 and\x1b[31m falls.",
}
NO_WORDS = "… — !? ()"

B = TypeVar("B", bound=Backend)
R = TypeVar("R")
P = TypeVar("P")


class BackendSuite(Generic[B, R, P]):
    """The tests of every backend.

    Attributes:
        protocol: which it fulfils.
        plain: a request that must succeed.
        other: another one, cheap too.
        long: one that takes a while where making takes any time.
        unusual: requests that give a product or an error with words.
        secret: what the backend was given and must not show; empty for none.
    """

    protocol: type
    plain: R
    other: R
    long: R
    unusual: Mapping[str, R]
    secret = ""

    async def ask(self, backend: B, request: R) -> P:
        """Ask the backend."""
        raise NotImplementedError

    def check(self, product: P, request: R) -> None:
        """Check that the product is fit for the stage and is what was asked for."""
        raise NotImplementedError

    async def made(self, backend: B, request: R) -> P:
        """Ask the backend, within a limit."""
        async with asyncio.timeout(CALL_S):
            return await self.ask(backend, request)

    async def test_it_states_what_it_is(self, backend: B) -> None:
        assert isinstance(backend, self.protocol)
        assert NAME.fullmatch(backend.name)
        assert isinstance(backend.calls_max, int)
        assert backend.calls_max >= 1
        assert isinstance(backend.holds_gpu, bool)

    async def test_its_provenance_is_words_that_stay_the_same(self, backend: B) -> None:
        first = dict(backend.provenance())
        assert first, "a product's manifest entry must tell what made it"
        assert all(isinstance(part, str) for pair in first.items() for part in pair)
        assert dict(backend.provenance()) == first
        await self.made(backend, self.plain)
        assert dict(backend.provenance()) == first
        self.check_hides(json.dumps(first))

    async def test_a_probe_says_what_it_is_in_one_line(self, backend: B) -> None:
        async with asyncio.timeout(CALL_S):
            probe = await backend.probe()
        assert isinstance(probe, Probe)
        assert probe.summary.strip()
        assert probe.summary.isprintable()
        self.check_hides(probe.summary + json.dumps(dict(probe.details)))

    async def test_a_plain_request_gives_a_product(self, backend: B) -> None:
        self.check(await self.made(backend, self.plain), self.plain)

    async def test_unusual_requests_give_a_product_or_an_error_with_words(self, backend: B) -> None:
        faults = {name: await self.fault(backend, request) for name, request in self.unusual.items()}
        assert not {name: fault for name, fault in faults.items() if fault}
        self.check(await self.made(backend, self.plain), self.plain)

    async def test_a_cancelled_call_ends_soon_and_the_backend_works_on(self, backend: B) -> None:
        before = children()
        for moment_s in MOMENTS_S:
            await self.cancelled_after(backend, moment_s)
        self.check(await self.made(backend, self.plain), self.plain)
        await self.cancelled_after(backend, MOMENTS_S[-1])
        await backend.aclose()
        assert children() <= before

    async def test_two_calls_at_once_are_both_answered(self, backend: B) -> None:
        one, two = await asyncio.gather(self.made(backend, self.plain), self.made(backend, self.other))
        self.check(one, self.plain)
        self.check(two, self.other)

    async def test_cancelling_one_of_two_calls_leaves_the_other(self, backend: B) -> None:
        for cancelled in (0, 1):
            tasks = [asyncio.create_task(self.made(backend, request)) for request in (self.plain, self.plain)]
            await asyncio.wait(tasks, timeout=MOMENTS_S[1])
            tasks[cancelled].cancel()
            self.check(await tasks[1 - cancelled], self.plain)
            await asyncio.wait(tasks, timeout=CANCEL_S)
            assert tasks[cancelled].done()

    async def test_closing_it_twice_is_fine_and_leaves_no_process(self, backend: B) -> None:
        before = children()
        await self.made(backend, self.plain)
        for _ in range(2):
            async with asyncio.timeout(CANCEL_S):
                await backend.aclose()
        assert children() <= before

    async def test_closing_it_unused_is_fine(self, backend: B) -> None:
        for _ in range(2):
            async with asyncio.timeout(CANCEL_S):
                await backend.aclose()

    async def cancelled_after(self, backend: B, moment_s: float) -> None:
        """Cancel a long call after a while; it must end, and by the cancelling if it had not ended before."""
        task = asyncio.create_task(self.ask(backend, self.long))
        await asyncio.wait({task}, timeout=moment_s)
        if task.done():
            self.check(task.result(), self.long)
            return
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_S)
        assert task.cancelled(), f"cancelled after {moment_s} s it did not stop within {CANCEL_S} s"

    async def fault(self, backend: B, request: R) -> str:
        """Return what is wrong with the outcome of a request; empty when nothing is."""
        try:
            product = await self.made(backend, request)
        except Exception as error:  # noqa: BLE001 - which ones may come is what is tested
            return self.fault_of(error)
        try:
            self.check(product, request)
        except (AssertionError, TopicdError) as error:
            return f"an unfit product: {error}"
        return ""

    def fault_of(self, error: Exception) -> str:
        """Return what is wrong with an error; empty when it is one of the five kinds, with words."""
        if not isinstance(error, TopicdError) or type(error) not in KINDS:
            return f"{type(error).__name__} is none of the five kinds: {error}"
        if not CAUSE.fullmatch(error.cause):
            return f"{error.cause!r} is no slug"
        if not 0 < len(error.message) <= MESSAGE_CHARS_MAX or "\n" in error.message:
            return f"{error.cause}: {error.message[:200]!r} is not a sentence"
        if isinstance(error, Rejected | Unusable) and not error.hint.strip():
            return f"{error.cause}: a person must act and gets no hint"
        if self.secret and self.secret in f"{error.message}{error.hint}":
            return f"{error.cause}: shows a secret"
        return ""

    def check_hides(self, text: str) -> None:
        """Check that nothing secret is in it."""
        assert not USERINFO.search(text)
        assert not self.secret or self.secret not in text


class Repeats(BackendSuite[B, R, P]):
    """One test more, for backends that make the same of the same request."""

    async def test_the_same_request_gives_the_same_product(self, backend: B) -> None:
        first = await self.made(backend, self.plain)
        beside, again = await asyncio.gather(self.made(backend, self.other), self.made(backend, self.plain))
        assert again == first
        assert beside != first
