"""A Prometheus of Debian's package, alone in its process, and what it is asked."""

import contextlib
import math
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import yaml

from tests.system.harness import Process, answers_200, clean_environment, free_port

MISSING = "needs prometheus and promtool (Debian: apt-get install prometheus)"
SCRAPE_SECONDS = 1

# What Grafana puts in for its own variables; everything is chosen.
PUT_IN = {"$__rate_interval": "15s", "$__range": "60s", "$namespace": ".*", "$team": ".+", "$model": ".+"}


def programs() -> tuple[str, str] | None:
    """Where prometheus and promtool are, if they are."""
    found = shutil.which("prometheus"), shutil.which("promtool")
    return (found[0], found[1]) if found[0] and found[1] else None


def filled(expr: str) -> str:
    """A panel's query as Grafana would send it."""
    for name, value in PUT_IN.items():
        expr = expr.replace(name, value)
    return expr


class Series(NamedTuple):
    labels: dict[str, str]
    points: list[tuple[float, float]]  # seconds and values; NaN left out


class QueryRefusedError(Exception):
    """Prometheus' own words."""


class Prometheus:
    """As a block: scrapes `targets`, a replica's name and its ops port each, every second."""

    def __init__(self, targets: Mapping[str, int], rules: Sequence[Path]) -> None:
        found = programs()
        assert found, MISSING
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._directory = tempfile.TemporaryDirectory(prefix="weir-prometheus-")
        home = Path(self._directory.name)
        static = [
            {"targets": [f"127.0.0.1:{ops_port}"], "labels": {"namespace": "llm", "pod": pod}}
            for pod, ops_port in targets.items()
        ]
        config = {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "1s"},
            "scrape_configs": [{"job_name": "weir", "static_configs": static}],
            "rule_files": [str(path) for path in rules],
        }
        (home / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._process = Process(
            found[0],
            f"--config.file={home}/prometheus.yml",
            f"--storage.tsdb.path={home}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
            "--log.level=warn",
            env=clean_environment(GOMAXPROCS="1"),
        )
        self._http = httpx.Client(base_url=f"{self.url}/api/v1", timeout=30, trust_env=False)
        try:
            self._process.wait_ready(lambda: answers_200(f"{self.url}/-/ready"))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        self._process.stop()
        self._directory.cleanup()

    def curves(self, expr: str, start: float, end: float) -> list[Series]:
        """Each series of a query over time, as far as it is a number."""
        found = self._ask("query_range", query=expr, start=start, end=end, step=1)["result"]
        return [Series(one["metric"], _numbers(one["values"])) for one in found]

    def values(self, expr: str, at: float) -> list[Series]:
        """The same at one moment."""
        found = self._ask("query", query=expr, time=at)["result"]
        return [Series(one["metric"], _numbers([one["value"]])) for one in found]

    def exemplars(self, expr: str, start: float, end: float) -> list[dict[str, Any]]:
        """Series with the exemplars that each has."""
        return list(self._ask("query_exemplars", query=expr, start=start, end=end))

    def rules(self) -> list[dict[str, Any]]:
        """Each rule that it evaluates, and how that goes."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def targets_up(self) -> int:
        with contextlib.suppress(httpx.HTTPError):
            return int(sum(series.points[0][1] for series in self.values("up", time.time()) if series.points))  # noqa: TID251
        return 0

    def _ask(self, what: str, **parameters: Any) -> Any:
        answer = self._http.get(what, params=parameters).json()
        if answer["status"] != "success":
            raise QueryRefusedError(f"{answer['error']}: {parameters.get('query')}")
        return answer["data"]


def _numbers(values: list[list[Any]]) -> list[tuple[float, float]]:
    pairs = [(float(at), float(value)) for at, value in values]
    return [(at, value) for at, value in pairs if not math.isnan(value)]
