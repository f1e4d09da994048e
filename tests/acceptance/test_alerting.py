"""Real Prometheus and Alertmanager beside a real daemon: a trouble is told, its cure too, and health is not told."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripts import dashboards

from fakes.ollama_server import OllamaServer, script_answer
from rig.afield import Afield, afield
from rig.daemon import FAKES, QUICK, Home, running, until
from rig.nginx import free_port
from rig.prometheus import Prometheus, monitoring

TOPIC = "---\nscenes: 2\n---\n# Tides\n\nThe Moon pulls on the sea.\n"
# Counters are seen to rise over all of the test.
RATE_INTERVAL = "5m"
# What fires here on a disk that is nearly full, whatever is tested.
OF_THE_MACHINE = {"TopicdDiskAlmostFull", "TopicdDiskSlow"}


def ollama(servers: Afield) -> OllamaServer:
    """Return a server that is up."""
    server = OllamaServer(models=("tiny:latest",), answers=(script_answer(2),))
    servers.up(server)
    return server


def quick_home(tmp_path: Path, server: OllamaServer, **env: str) -> tuple[Home, str]:
    """Return a home whose scripts are written by a server, and where its daemon will be scraped."""
    port = free_port()
    path = tmp_path / "home"
    path.mkdir()
    asks = {"TOPICD_SCRIPT_BACKEND": "ollama", "OLLAMA_BASE_URL": server.url, "OLLAMA_MODEL": "tiny"}
    own = {"TOPICD_METRICS_PORT": str(port), "TOPICD_DOWN_MAX_S": "1"}
    return Home(path, {**FAKES, **QUICK, **asks, **own, **env}), f"127.0.0.1:{port}"


def test_a_server_that_is_away_is_told_and_its_return_too(tmp_path: Path) -> None:
    with afield() as servers:
        server = ollama(servers)
        home, target = quick_home(tmp_path, server)
        with running(home), monitoring(tmp_path, [target]) as (prometheus, received):
            until(lambda: prometheus.is_up(target), "the daemon is scraped")
            servers.down(server)
            home.drop("tides.md", TOPIC)
            until(lambda: received.alerts("TopicdBackendDown", "firing"), "the webhook is told")
            (told, *_) = received.alerts("TopicdBackendDown", "firing")
            assert told["labels"]["stage"] == "scripts"
            assert told["annotations"]["summary"] == "scripts waits for its backend"
            assert told["annotations"]["runbook"] == "docs/RUNBOOK.md#topicdbackenddown"
            until(lambda: received.alerts("TopicdBreakerOpen", "firing"), "of the breaker, too")
            servers.up(server)
            home.only("output")
            until(lambda: received.alerts("TopicdBackendDown", "resolved"), "the cure is told")
            until(lambda: received.alerts("TopicdBreakerOpen", "resolved"), "of the breaker, too")
            until(lambda: not prometheus.firing() - OF_THE_MACHINE, "nothing fires any more")
    expected = {"TopicdBackendDown", "TopicdBreakerOpen", "TopicdNotReady"}
    assert received.names() - OF_THE_MACHINE <= expected


def test_a_daemon_that_is_gone_is_told_and_nothing_else_of_it(tmp_path: Path) -> None:
    with afield() as servers, contextlib.ExitStack() as stack:
        home, target = quick_home(tmp_path, ollama(servers))
        with running(home):
            # Not before the daemon is there: a slow start would be told as one that is gone.
            prometheus, received = stack.enter_context(monitoring(tmp_path, [target]))
            until(lambda: prometheus.is_up(target), "the daemon is scraped")
            home.drop("tides.md", TOPIC)
            home.only("output")
            # As long as an alert would take here from its cause to the webhook.
            end = until(lambda: samples(prometheus, target), "it is scraped a while", 90)
            assert end >= SCRAPES
            assert prometheus.firing() <= OF_THE_MACHINE, "a healthy daemon has nothing to tell"
            assert received.names() <= OF_THE_MACHINE
        until(lambda: received.alerts("TopicdDown", "firing"), "the webhook is told")
        with running(home):
            until(lambda: received.alerts("TopicdDown", "resolved"), "its return is told")
        assert received.names() - OF_THE_MACHINE == {"TopicdDown"}


SCRAPES = 10


def samples(prometheus: Prometheus, target: str) -> float:
    """Return how often a target was scraped, once that was often enough; else 0."""
    found = prometheus.query(f'count_over_time(up{{instance="{target}"}}[5m])')
    count = float(found[0]["value"][1]) if found else 0.0
    return count if count >= SCRAPES else 0.0


@pytest.fixture(scope="module")
def at_work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen a daemon work."""
    tmp_path = tmp_path_factory.mktemp("at-work")
    with afield() as servers, contextlib.ExitStack() as stack:
        home, target = quick_home(tmp_path, ollama(servers), FAKE_SECONDS="0.2")
        prometheus, _ = stack.enter_context(monitoring(tmp_path, [target]))
        stack.enter_context(running(home))
        until(lambda: prometheus.is_up(target), "the daemon is scraped")
        for number in range(3):
            home.drop(f"{number}.md", TOPIC)
        until(lambda: len(home.ids("output")) == 3, "all are done")
        done = f'topicd_jobs_done_total{{instance="{target}"}}'
        until(lambda: [each["value"][1] for each in prometheus.query(done)] == ["3"], "the last scrape has seen it")
        yield prometheus


QUERIES = [
    pytest.param(expr, id=f"{name}: {panel.title}: {legend or at}")
    for name, (_, panels, _) in dashboards.DASHBOARDS.items()
    for panel in panels
    if panel.source == dashboards.PROMETHEUS
    for at, (expr, legend) in enumerate(panel.queries)
]


@pytest.mark.parametrize("expr", QUERIES)
def test_each_query_of_the_dashboards_has_data(at_work: Prometheus, expr: str) -> None:
    asked = expr.replace("$__rate_interval", RATE_INTERVAL).replace("$stage", "audio")
    assert not re.search(r"\$\w", asked), asked
    found = at_work.query(asked)
    assert found, asked
    assert any(each["value"][1] != "NaN" for each in found), f"{asked}: {found}"
