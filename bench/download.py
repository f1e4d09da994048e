"""A download beside curl, wget, aria2c and huggingface_hub's way: one large file from nginx on loopback, side by side.

Each takes the file and knows its sha256 at the end: all but topicd by `sha256sum` after them. Prints medians of wall
time, CPU seconds a GiB and peak memory, and ratios to curl with sha256sum and to curl alone; and for how long an event
loop stood still at the most, in topicd beside its download, and beside curl with sha256sum. BENCH_DIR chooses the file
system; topicd alone has the file on the disk when it ends, so there is a row of curl with sha256sum and `sync`, too.
"""

import argparse
import asyncio
import hashlib
import importlib.util
import os
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from topicd.backends.download import Downloads
from topicd.backends.files import File, Limits

MIB: Final = 1_048_576
GIB: Final = 1_073_741_824
UP_S: Final = 10.0
TICK_S: Final = 0.001
NGINX: Final = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
SETTINGS: Final = """\
daemon off; master_process off; pid {folder}/pid; error_log stderr warn;
events {{ worker_connections 64; }}
http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port}; root {folder}; }} }}
"""


TOPICD: Final = Path(sys.executable).with_name("topicd")
# What its downloads of models come down to.
HUB: Final = """\
import sys
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
with open(sys.argv[2], "wb") as file:
    http_get(sys.argv[1], file)
"""


class Cost(NamedTuple):
    """What one download took."""

    wall_s: float
    cpu_s: float
    memory_mb: float
    note: str = ""


def commands(url: str, target: Path) -> Mapping[str, list[list[str]]]:
    """Return what each rival runs; those that are not installed are left out."""
    hashing = ["sha256sum", str(target)]
    known = {
        "curl alone": [["curl", "-sSfo", str(target), url]],
        "curl + sha256sum": [["curl", "-sSfo", str(target), url], hashing],
        "wget + sha256sum": [["wget", "-qO", str(target), url], hashing],
        "curl + sha256sum + sync": [["curl", "-sSfo", str(target), url], hashing, ["sync", str(target)]],
        "aria2c + sha256sum": [["aria2c", "-q", "-d", str(target.parent), "-o", target.name, url], hashing],
        "huggingface_hub + sha256sum": [[sys.executable, "-c", HUB, url, str(target)], hashing],
        "topicd": [[sys.executable, __file__, "--one", url, str(target)]],
        "topicd fetch url": [[str(TOPICD), "fetch", "url", url, "--to", str(target), "--quiet"]],
    }
    there = {name: steps for name, steps in known.items() if shutil.which(steps[0][0])}
    if importlib.util.find_spec("huggingface_hub") is None:
        del there["huggingface_hub + sha256sum"]
    if missing := known.keys() - there.keys():
        print(f"not installed: {', '.join(sorted(missing))}")
    return there


def cost(steps: list[list[str]]) -> Cost:
    """Run the steps one after the other."""
    before, begun, notes = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), []
    peaks = []
    for step in steps:
        process = subprocess.Popen(step, stdout=subprocess.PIPE)
        assert process.stdout
        notes.append(process.stdout.read().decode())
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0, step
        peaks.append(used.ru_maxrss / 1024)
    wall_s, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall_s, cpu_s, max(peaks), notes[-1].strip() if len(steps) == 1 else "")


async def watched(work: Awaitable[object]) -> float:
    """Return for how many seconds the event loop stood still at the most while the work went on."""
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(TICK_S)
            longest_s = max(longest_s, time.perf_counter() - begun - TICK_S)

    watching = asyncio.create_task(watch())
    await work
    watching.cancel()
    return longest_s


async def one(url: str, target: Path) -> float:
    """Fetch one file and return for how many seconds the loop stood still at the most."""
    downloads = Downloads(tls=ssl.create_default_context(), limits=Limits(free_bytes_min=0))
    stood_s = await watched(downloads.fetch(File(target, [url])))
    downloads.close()
    return stood_s


async def beside(steps: list[list[str]]) -> float:
    """Run the steps and return for how many seconds a loop beside them stood still at the most."""

    async def run() -> None:
        for step in steps:
            process = await asyncio.create_subprocess_exec(*step, stdout=asyncio.subprocess.DEVNULL)
            assert await process.wait() == 0

    return await watched(run())


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start nginx on a folder; return it and its port."""
    assert NGINX, "nginx is not installed"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(SETTINGS.format(folder=folder, port=port))
    process = subprocess.Popen([NGINX, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    end = time.monotonic() + UP_S
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return process, port
    raise AssertionError("nginx does not answer")


def table(found: Mapping[str, list[Cost]], size: int) -> None:
    """Print medians, and ratios of wall time to curl's."""
    medians = {name: statistics.median(each.wall_s for each in costs) for name, costs in found.items()}
    print(f"{'':28}{'wall s':>8}{'MB/s':>7}{'CPU s/GiB':>11}{'MB':>6}{'x curl+sha':>12}{'x curl':>8}")
    for name, costs in found.items():
        cpu = statistics.median(each.cpu_s for each in costs) * GIB / size
        memory = statistics.median(each.memory_mb for each in costs)
        against, alone = medians[name] / medians["curl + sha256sum"], medians[name] / medians["curl alone"]
        rate = size / medians[name] / 1e6
        print(f"{name:28}{medians[name]:8.2f}{rate:7.0f}{cpu:11.2f}{memory:6.0f}{against:12.2f}{alone:8.2f}")
    stood = [float(each.note) for each in found["topicd"]]
    print(f"topicd's event loop stood still for {_ms(stood)} ms at the most (median of {len(stood)} runs, worst)")


def _ms(stood_s: list[float]) -> str:
    return f"{1000 * statistics.median(stood_s):.1f}, {1000 * max(stood_s):.1f}"


def digest_of(path: Path) -> bytes:
    """Return a file's sha256, in little memory: what this process holds is counted as its children's, too."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("URL", "TARGET"), help="fetch one file and end")
    args = parser.parse_args()
    if args.one:
        print(asyncio.run(one(args.one[0], Path(args.one[1]))))
        return
    with tempfile.TemporaryDirectory(prefix="topicd-bench-", dir=os.environ.get("BENCH_DIR")) as root:
        folder, target = Path(root, "served"), Path(root, "got")
        folder.mkdir()
        with (folder / "file").open("wb") as file:
            for _ in range(args.mib):
                file.write(os.urandom(MIB))
        wanted, stood = digest_of(folder / "file"), list[float]()
        process, port = serve(folder)
        try:
            rivals = commands(f"http://127.0.0.1:{port}/file", target)
            found: dict[str, list[Cost]] = {name: [] for name in rivals}
            for _ in range(args.runs):
                for name, steps in rivals.items():
                    target.unlink(missing_ok=True)
                    found[name].append(cost(steps))
                    assert digest_of(target) == wanted
                target.unlink()
                stood.append(asyncio.run(beside(rivals["curl + sha256sum"])))
        finally:
            process.kill()
            process.wait()
    print(f"{args.mib} MiB from nginx on loopback, {args.runs} runs in turn, medians")
    table(found, args.mib * MIB)
    print(f"a loop beside curl + sha256sum stood still for {_ms(stood)} ms")


if __name__ == "__main__":
    main()
