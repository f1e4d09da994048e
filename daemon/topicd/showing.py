"""What the page shows, from the tree and from the daemon itself.

Owns how the report is put together for the page. Promises that the daemon is not asked over its own port, and that a
job which moves away while it is read is no error. Each may wait for the disk: not for the event loop.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from topicd import readiness
from topicd.errors import TopicdError
from topicd.report import Report
from topicd.spool import Spool
from topicd.store import Store
from topicd.web import Health
from topicd.web.pages import Shown

Json = dict[str, Any]


def shown(spool: Spool, store: Store, ready: Callable[[], Health]) -> Shown:
    """Return what there is to show.

    Args:
        spool: the tree.
        store: who has it.
        ready: what `/readyz` says.
    """
    report = Report(spool, store)

    def status() -> Json:
        health = ready()
        return report.status(readiness.told({"ok": health.ok, "why": list(health.why), **health.more}))

    def show(name: str) -> Json | None:
        found = report.at(name)
        try:
            return report.show(found) if found else None
        except (OSError, TopicdError):
            return None

    def story(name: str) -> Json:
        found = report.at(name)
        return report.story(found) if found else {"title": "", "language": "", "scenes": [], "files": []}

    def folder(name: str) -> Path | None:
        found = report.at(name)
        return found.path if found else None

    return Shown(status, show, story, report.gallery, folder)
