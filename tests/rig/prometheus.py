"""A real Prometheus and a real Alertmanager on loopback, with the files of compose/monitoring/ at a faster pace.

Owns the two processes, their configuration in a folder, and the receiver of what the Alertmanager sends. What is
changed of the project's files is what a test may not wait for, and addresses; every rule, route and matcher is theirs.
Promises that both answer when they are handed over and are gone afterwards.
"""

import contextlib
import json
import shutil
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from rig.daemon import until
from rig.nginx import free_port

MONITORING: Final = Path(__file__).resolve().parents[2] / "compose" / "monitoring"
PROGRAMS: Final = ("prometheus", "prometheus-alertmanager")
EACH_S: Final = 1
UP_S: Final = 60.0
STOP_S: Final = 20.0
ANSWER_S: Final = 10.0


class Received:
    """A webhook's receiver. `groups` is all that was sent, in order, as Alertmanager's webhook format has it."""

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []

    def alerts(self, name: str, status: str) -> list[dict[str, Any]]:
        """Return what was told of one alert, `firing` or `resolved`."""
        every = [alert for group in [*self.groups] for alert in group["alerts"]]
        return [each for each in every if (each["labels"]["alertname"], each["status"]) == (name, status)]

    def names(self) -> set[str]:
        """Return which alerts were ever told."""
        return {alert["labels"]["alertname"] for group in [*self.groups] for alert in group["alerts"]}


class Prometheus:
    """One that scrapes. `url` is where it is asked."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return an instant query's result; an AssertionError with Prometheus' words where it is none."""
        return self._get("query", query=expr)["result"]  # type: ignore[no-any-return]

    def firing(self) -> set[str]:
        """Return the alerts that fire."""
        return {each["labels"]["alertname"] for each in self._get("alerts")["alerts"] if each["state"] == "firing"}

    def is_up(self, instance: str) -> bool:
        """Tell whether the last scrape of a target went well."""
        return [each["value"][1] for each in self.query(f'up{{instance="{instance}"}}')] == ["1"]

    def _get(self, path: str, **asked: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        try:
            with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:  # noqa: S310 - loopback
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{asked}: {error.read().decode()}") from error


@contextlib.contextmanager
def receiver() -> Iterator[tuple[str, Received]]:
    """Listen for the Alertmanager; yield the address and what came."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.groups.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/alerts", received
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def monitoring(folder: Path, targets: Sequence[str]) -> Iterator[tuple[Prometheus, Received]]:
    """Run both, scraping `targets` (`host:port`) each second."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with receiver() as (webhook, received), contextlib.ExitStack() as stack:
        alertmanager = stack.enter_context(_alertmanager(folder, webhook))
        prometheus = stack.enter_context(_prometheus(folder, targets, alertmanager))
        yield prometheus, received


@contextlib.contextmanager
def _alertmanager(folder: Path, webhook: str) -> Iterator[str]:
    config = yaml.safe_load((MONITORING / "alertmanager" / "alertmanager.yml").read_text())
    config["route"] |= {"group_wait": f"{EACH_S}s", "group_interval": f"{EACH_S}s"}
    (config["receivers"][0]["webhook_configs"][0])["url"] = webhook
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    args = [f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alertmanager"]
    with _running(folder, "prometheus-alertmanager", *args, "--cluster.listen-address=", address=address):
        yield address


@contextlib.contextmanager
def _prometheus(folder: Path, targets: Sequence[str], alertmanager: str) -> Iterator[Prometheus]:
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(("scrape_interval", "evaluation_interval"), f"{EACH_S}s")
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [alertmanager]}]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [*targets]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    rules = yaml.safe_load((MONITORING / "prometheus" / "rules.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = f"{2 * EACH_S}s"
    (folder / "rules.yml").write_text(yaml.safe_dump(rules))
    address = f"127.0.0.1:{free_port()}"
    args = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus"]
    with _running(folder, "prometheus", *args, address=address):
        yield Prometheus(f"http://{address}")


@contextlib.contextmanager
def _running(folder: Path, program: str, *args: str, address: str) -> Iterator[None]:
    with (folder / f"{program}.log").open("wb") as log:
        process = subprocess.Popen([program, *args, f"--web.listen-address={address}"], stderr=log, stdout=log)
    try:
        until(_answering(process, f"http://{address}/-/ready", folder / f"{program}.log"), f"{program} is ready", UP_S)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answering(process: subprocess.Popen[bytes], url: str, log: Path) -> Callable[[], bool]:
    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except OSError:
            return False

    return answers
