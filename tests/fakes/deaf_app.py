"""A real daemon with a planted fault: while the file named by `FAKE_DEAF` exists, its intake cannot be woken."""

import asyncio
import os
from pathlib import Path

from topicd.app import INPUT, App
from topicd.settings import load
from topicd.telemetry import logs


class DeafApp(App):
    """Raises where the watcher asks for a scan of `input/`."""

    def _wake(self, kind: str, moved_in: str | None) -> None:
        if kind == INPUT and Path(os.environ["FAKE_DEAF"]).exists():
            raise RuntimeError("a planted fault")
        super()._wake(kind, moved_in)


async def main() -> None:
    """Serve until a signal."""
    await DeafApp(load()).serve()


if __name__ == "__main__":
    logs.configure(format="json", level="info")
    asyncio.run(main())
