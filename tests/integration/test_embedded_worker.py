"""The worker process with a real child: what it survives, and that nothing of it is left behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from topicd import errors
from topicd.backends.embedded.worker import STDERR_BYTES_KEPT, Worker

TARGET = "integration.test_embedded_worker:Target"
LIMIT_S = 30.0


class Target:
    """What the child runs."""

    def __init__(self, *, greeting: str = "hello", load_s: float = 0, load_error: str = "") -> None:
        time.sleep(load_s)
        if load_error:
            raise ImportError(load_error)
        self.greeting = greeting

    def echo(self, *, text: str, body_bytes: int = 0) -> tuple[dict[str, object], bytes]:
        return {"text": f"{self.greeting} {text}"}, b"\x00\xff" * (body_bytes // 2)

    def noise(self, *, stderr_bytes: int = 0) -> tuple[dict[str, object], bytes]:
        print("a library prints", flush=True)  # noqa: T201 - as libraries do
        os.write(1, b"\x00\x00 a native library writes\n")
        os.write(2, b"x" * stderr_bytes)
        return {"read": os.read(0, 10).decode()}, b""

    def look(self) -> tuple[dict[str, object], bytes]:
        files = []
        for link in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                files.append(str(link.readlink()))
        masked = sorted(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        usr1_default = signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        return {"files": files, "masked": masked, "usr1_default": usr1_default, "group": os.getpgrp()}, b""

    def sleep(self, *, seconds: float, begun_file: str) -> tuple[dict[str, object], bytes]:
        Path(begun_file).touch()
        time.sleep(seconds)
        return {}, b""

    def die(self, *, number: int, last_words: str = "") -> tuple[dict[str, object], bytes]:
        os.write(2, last_words.encode())
        os.kill(os.getpid(), number)
        return {}, b""

    def leave(self, *, code: int) -> tuple[dict[str, object], bytes]:
        os._exit(code)

    def fail(self, *, kind: str) -> tuple[dict[str, object], bytes]:
        if kind == "ValueError":
            raise ValueError("a bad thing")
        if kind == "RetryLater":
            raise errors.RetryLater("slow", "Later.", hint="Wait.", unit="script", after_s=3.5)
        raise getattr(errors, kind)("slug", "A sentence.", hint="Do this.", unit="script")


def make(*, idle_s: float = 60, start_timeout_s: float = LIMIT_S, **options: object) -> Worker:
    return Worker(
        TARGET,
        options,
        name="The test worker",
        idle_s=idle_s,
        start_timeout_s=start_timeout_s,
        reply_bytes_max=4 * 1024 * 1024,
    )


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    made = make()
    yield made
    await made.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def running_pid(worker: Worker) -> int:
    pid = worker.pid
    assert pid is not None
    return pid


async def test_answers_with_json_and_bytes_from_one_process(worker: Worker) -> None:
    assert worker.pid is None
    header, body = await worker.call("echo", {"text": "wörld", "body_bytes": 3_000_000}, timeout_s=LIMIT_S)
    first = worker.pid
    assert (header, body) == ({"text": "hello wörld"}, b"\x00\xff" * 1_500_000)
    await worker.call("echo", {"text": "again"}, timeout_s=LIMIT_S)
    assert worker.pid == first != os.getpid()


async def test_options_reach_the_target() -> None:
    worker = make(greeting="olá")
    header, _ = await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    await worker.aclose()
    assert header == {"text": "olá x"}


async def test_calls_wait_for_one_another_and_get_their_own_answers(worker: Worker) -> None:
    calls = [worker.call("echo", {"text": str(n)}, timeout_s=LIMIT_S) for n in range(20)]
    assert [header["text"] for header, _ in await asyncio.gather(*calls)] == [f"hello {n}" for n in range(20)]


async def test_prints_and_reads_of_libraries_do_not_touch_the_protocol(worker: Worker) -> None:
    assert await worker.call("noise", {}, timeout_s=LIMIT_S) == ({"read": ""}, b"")
    assert (await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S))[0] == {"text": "hello x"}


async def test_much_stderr_neither_blocks_nor_is_kept(worker: Worker) -> None:
    await worker.call("noise", {"stderr_bytes": 20_000_000}, timeout_s=LIMIT_S)
    with pytest.raises(errors.RetryLater, match=r"the end of it$") as caught:
        await worker.call("die", {"number": signal.SIGKILL, "last_words": "the end of it"}, timeout_s=LIMIT_S)
    assert len(caught.value.message) < STDERR_BYTES_KEPT + 200


async def test_a_crash_costs_one_call(worker: Worker) -> None:
    await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    first = running_pid(worker)
    with pytest.raises(errors.RetryLater, match="SIGSEGV") as caught:
        await worker.call("die", {"number": signal.SIGSEGV}, timeout_s=LIMIT_S)
    assert caught.value.cause == "worker_crashed"
    assert worker.pid is None
    assert gone(first)
    await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    assert running_pid(worker) != first


async def test_an_exit_in_a_call_names_its_code(worker: Worker) -> None:
    for _ in range(5):  # its code can be lost in a race with whoever else asks for it
        with pytest.raises(errors.RetryLater, match="exit code 7") as caught:
            await worker.call("leave", {"code": 7}, timeout_s=LIMIT_S)
        assert caught.value.cause == "worker_crashed"


async def test_a_child_killed_while_idle_costs_no_call(worker: Worker) -> None:
    await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    first = running_pid(worker)
    os.kill(first, signal.SIGKILL)
    await until(lambda: worker.pid is None)
    await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    assert running_pid(worker) != first


async def test_a_late_call_is_killed(worker: Worker, tmp_path: Path) -> None:
    await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    pid = running_pid(worker)
    with pytest.raises(errors.RetryLater, match=r"no answer in 0\.2 s") as caught:
        await worker.call("sleep", {"seconds": 600, "begun_file": str(tmp_path / "b")}, timeout_s=0.2)
    assert caught.value.cause == "worker_timeout"
    assert gone(pid)
    await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)


async def test_a_target_that_takes_too_long_to_load_is_killed() -> None:
    worker = make(load_s=600, start_timeout_s=1.5)
    with pytest.raises(errors.RetryLater) as caught:
        await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    assert caught.value.cause == "worker_timeout"
    assert worker.pid is None


async def test_a_cancelled_call_is_killed_and_the_loop_stays_free(worker: Worker, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    payload = {"seconds": 600, "begun_file": str(begun)}
    call = asyncio.create_task(worker.call("sleep", payload, timeout_s=600))
    await until(begun.exists)
    pid = running_pid(worker)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert gone(pid)


async def test_cancelling_a_call_that_waits_its_turn_kills_nothing(worker: Worker, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    payload = {"seconds": 0.5, "begun_file": str(begun)}
    first = asyncio.create_task(worker.call("sleep", payload, timeout_s=LIMIT_S))
    await until(begun.exists)
    second = asyncio.create_task(worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S))
    await asyncio.sleep(0)
    second.cancel()
    assert await first == ({}, b"")
    assert second.cancelled() or second.cancelling()


async def test_an_idle_child_is_ended_and_started_again() -> None:
    worker = make(idle_s=0.05)
    await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    pid = running_pid(worker)
    await until(lambda: worker.pid is None)
    await until(lambda: gone(pid))
    assert (await worker.call("echo", {"text": "y"}, timeout_s=LIMIT_S))[0] == {"text": "hello y"}
    await worker.aclose()


@pytest.mark.parametrize("kind", ["Unavailable", "Rejected", "Unusable", "StorageTrouble"])
async def test_errors_of_topicd_travel_whole(worker: Worker, kind: str) -> None:
    with pytest.raises(getattr(errors, kind)) as caught:
        await worker.call("fail", {"kind": kind}, timeout_s=LIMIT_S)
    error = caught.value
    assert type(error).__name__ == kind
    assert (error.cause, error.message, error.hint, error.unit) == ("slug", "A sentence.", "Do this.", "script")


async def test_the_asked_wait_travels_too_and_the_child_lives_on(worker: Worker) -> None:
    with pytest.raises(errors.RetryLater) as caught:
        await worker.call("fail", {"kind": "RetryLater"}, timeout_s=LIMIT_S)
    assert caught.value.after_s == 3.5


@pytest.mark.parametrize(
    ("method", "payload", "words"),
    [
        ("fail", {"kind": "ValueError"}, "ValueError: a bad thing"),
        ("nothing", {}, "AttributeError"),
        ("_private", {}, "not public"),
        ("echo", {"wrong": 1}, "TypeError"),
    ],
)
async def test_other_errors_are_worth_another_try(
    worker: Worker, method: str, payload: dict[str, object], words: str
) -> None:
    with pytest.raises(errors.RetryLater, match=words) as caught:
        await worker.call(method, payload, timeout_s=LIMIT_S)
    assert caught.value.cause == "worker_error"


async def test_a_missing_package_is_our_set_up() -> None:
    worker = make(load_error="No module named 'piper'")
    with pytest.raises(errors.Unusable, match="piper") as caught:
        await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    assert caught.value.cause == "embedded_missing"
    assert "topicd[embedded]" in caught.value.hint
    assert worker.pid is None


async def test_a_reply_over_the_limit_is_refused(worker: Worker) -> None:
    with pytest.raises(errors.RetryLater, match="out of bounds") as caught:
        await worker.call("echo", {"text": "x", "body_bytes": 5 * 1024 * 1024}, timeout_s=LIMIT_S)
    assert caught.value.cause == "worker_reply"
    assert worker.pid is None


async def test_closing_twice_leaves_no_process(worker: Worker) -> None:
    await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    pid = running_pid(worker)
    await worker.aclose()
    assert gone(pid)
    await worker.aclose()
    assert worker.pid is None


async def test_closing_cuts_a_call_in_hand(worker: Worker, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    payload = {"seconds": 600, "begun_file": str(begun)}
    call = asyncio.create_task(worker.call("sleep", payload, timeout_s=600))
    await until(begun.exists)
    await worker.aclose()
    with pytest.raises(errors.RetryLater):
        await call


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signals_meant_for_the_daemon_do_not_end_the_child(worker: Worker, number: int) -> None:
    await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    pid = running_pid(worker)
    os.kill(pid, number)
    await worker.call("echo", {"text": "x"}, timeout_s=LIMIT_S)
    assert worker.pid == pid


async def test_the_child_inherits_no_files_masks_handlers_or_group(worker: Worker, tmp_path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with (tmp_path / "secret").open("w") as file:
            os.set_inheritable(file.fileno(), True)  # noqa: FBT003 - the name says it
            seen, _ = await worker.call("look", {}, timeout_s=LIMIT_S)
    finally:
        signal.signal(signal.SIGUSR1, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    files = seen["files"]
    assert isinstance(files, list)
    others = [name for name in files if not name.startswith(("pipe:", "/proc/")) and name != os.devnull]
    assert (others, seen["masked"], seen["usr1_default"]) == ([], [], True)
    assert seen["group"] != os.getpgrp()


PARENT = """
import asyncio, sys
from topicd.backends.embedded.worker import Worker
async def main():
    worker = Worker({target!r}, {{}}, name="w", idle_s=600, start_timeout_s=30, reply_bytes_max=1000)
    await worker.call("echo", {{"text": "x"}}, timeout_s=30)
    print(worker.pid, flush=True)
    if {busy}:
        await worker.call("sleep", {{"seconds": 600, "begun_file": {begun!r}}}, timeout_s=600)
    await asyncio.sleep(600)
sys.path.insert(0, {tests!r})
asyncio.run(main())
"""


@pytest.mark.parametrize("busy", [False, True])
async def test_the_child_dies_with_a_killed_daemon(tmp_path: Path, busy: bool) -> None:  # noqa: FBT001 - a case
    begun = tmp_path / "begun"
    tests = str(Path(__file__).parents[1])
    code = PARENT.format(target=TARGET, busy=busy, begun=str(begun), tests=tests)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:  # noqa: ASYNC220 - nothing else runs meanwhile
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        if busy:
            await until(begun.exists)
        assert not gone(pid)
        parent.kill()
    await until(lambda: gone(pid))


def test_the_daemons_own_process_stays_light() -> None:
    code = (
        "import sys, topicd.backends.embedded.llm, topicd.backends.embedded.voice;"
        "print({'xllamacpp','piper','numpy','onnxruntime','PIL','resvg_py'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
