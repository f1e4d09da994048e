#!/usr/bin/env python3
"""Write anew what is shown of events, metrics and settings: tables in docs/, and journald's catalogue.

Run it by `make reference` when one of them changes; a test holds the pages to the code.
"""

import re
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

from topicd.errors import CAUSES
from topicd.settings import Settings, env_name, is_secret, limits, plain
from topicd.stages.base import OUTCOMES
from topicd.states import Stage
from topicd.telemetry.advice import ADVICE, message_id
from topicd.telemetry.events import EVENTS
from topicd.telemetry.metrics import Metrics
from topicd.telemetry.present import Present, Server, TreeState

TOP = Path(__file__).resolve().parents[1]
PAGE = TOP / "docs" / "OPERATIONS.md"
SETTINGS_PAGE = TOP / "docs" / "CONFIGURATION.md"
CATALOGUE = TOP / "systemd" / "topicd.catalog"
# The library's own: what they say is in its manual.
FOREIGN = "process_"


def metrics() -> Metrics:
    """Return the metrics of a daemon with one server."""
    made = Metrics(
        list(Stage),
        causes=sorted(CAUSES),
        modes=("events", "poll"),
        reasons=(),
        outcomes=OUTCOMES,
        version="",
        present=Present(tree=lambda: TreeState({}, {}, 0), servers=lambda: [Server("scripts", "gpu:1", "closed", 0.0)]),
    )
    made.know_backends(["ollama"])
    return made


def event_rows() -> str:
    """Return the table of events."""
    rows = ["| event | level | fields | what to do |", "|---|---|---|---|"]
    for name, spec in EVENTS.items():
        fields = " ".join(f"`{field}`" for field in spec.fields)
        rows.append(f"| `topicd.{name}` | {spec.level} | {fields} | {ADVICE.get(name, '')} |")
    return "\n".join(rows) + "\n"


def metric_rows() -> str:
    """Return the table of metrics."""
    rows = ["| metric | type | labels | what |", "|---|---|---|---|"]
    for family in sorted(metrics().registry.collect(), key=lambda family: family.name):
        if family.name.startswith(FOREIGN):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        shown = " ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {family.type} | {shown} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def catalogue() -> str:
    """Return the catalogue (journalctl(1), --update-catalog), one entry an event."""
    return "\n".join(_entry(name) for name in EVENTS)


def _entry(name: str) -> str:
    spec = EVENTS[name]
    subject = re.sub(r"\{(\w+)\}", lambda found: f"@TOPICD_{found[1].upper()}@", spec.message)
    advice = textwrap.fill(ADVICE.get(name, "Nothing need be done."), 100)
    return f"-- {message_id(f'topicd.{name}')}\nSubject: {subject}\nDefined-By: topicd\n\n{advice}\n"


def setting_rows(*, is_shared: bool) -> str:
    """Return the table of topicd's own settings, or of those that other programs use too."""
    rows = ["| setting | default | from … to | what |", "|---|---|---|---|"]
    for name, info in Settings.model_fields.items():
        if (info.validation_alias is not None) != is_shared:
            continue
        default = plain(info.default)
        what = (info.description or "").replace("|", "\\|")
        secret = "; a secret" if is_secret(info) else ""
        bounds = limits(info).strip(" ()")
        rows.append(f"| `{env_name(name, info)}` | {f'`{default}`' if default else ''} | {bounds} | {what}{secret} |")
    return "\n".join(rows) + "\n"


def filled(page: str) -> str:
    """Return a page with those of the tables that it has as they should be."""
    tables: dict[str, Callable[[], str]] = {
        "events": event_rows,
        "metrics": metric_rows,
        "own settings": partial(setting_rows, is_shared=False),
        "shared settings": partial(setting_rows, is_shared=True),
    }
    for name in (name for name in tables if f"<!-- {name}: begin -->" in page):
        rows = tables[name]()
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        head, _, rest = page.partition(begin)
        page = f"{head}{begin}{rows}{end}{rest.partition(end)[2]}"
    return page


def main() -> None:
    """Write all."""
    for page in (PAGE, SETTINGS_PAGE):
        page.write_text(filled(page.read_text()))
    CATALOGUE.write_text(catalogue())


if __name__ == "__main__":
    main()
