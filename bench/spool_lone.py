"""How long one lone claim, begin and finish take, each acknowledged durable, with nothing else in the spool.

Prints one line of JSON: of each verb the milliseconds, in order of time.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from bench.rivals import topics
from bench.spool_engine import CountingDisk, begin, claim, finish, new_store

from topicd.states import Stage

T = TypeVar("T")


async def timed(verb: Awaitable[T], into_ms: list[float]) -> T:
    """Wait for a verb and note how long it took."""
    begun = time.perf_counter()
    done = await verb
    into_ms.append((time.perf_counter() - begun) * 1e3)
    return done


async def measure(folder: Path, samples: int, every_s: float) -> dict[str, list[float]]:
    """Do one of each, again and again with pauses between them."""
    store = new_store(folder, CountingDisk())
    took: dict[str, list[float]] = {"claim": [], "begin": [], "finish": []}
    for number, topic in enumerate(topics(samples + 1)):
        path = store.spool.input / f"{number}.md"
        path.write_bytes(topic)
        await asyncio.sleep(every_s / 3)
        job = await timed(claim(store, path), took["claim"])
        await asyncio.sleep(every_s / 3)
        job = await timed(begin(store, Stage.SCRIPTS, job.id), took["begin"])
        await asyncio.sleep(every_s / 3)
        await timed(finish(store, Stage.SCRIPTS, job), took["finish"])
    return {verb: each[1:] for verb, each in took.items()}  # the first meets cold code


def main() -> None:
    """Measure once."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--samples", type=int, required=True)
    options.add_argument("--every-s", type=float, required=True)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as home:
        print(json.dumps(asyncio.run(measure(Path(home), args.samples, args.every_s))))


if __name__ == "__main__":
    main()
