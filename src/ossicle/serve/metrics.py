"""Counts and times in Prometheus' text format (version 0.0.4).

Source: our choice; three kinds of numbers do not need a library.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping

BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Metrics:
    """Counters, histograms of seconds, and gauges that are read when asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], float] = defaultdict(float)
        self._times: dict[tuple[str, str], list[float]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name, _labels(labels)] += by

    def time(self, name: str, seconds: float, **labels: str) -> None:
        """Add to a histogram."""
        with self._lock:
            row = self._times.setdefault((name, _labels(labels)), [0.0] * (len(BUCKETS_S) + 2))
            for index, bound in enumerate(BUCKETS_S):
                row[index] += seconds <= bound
            row[-2] += seconds
            row[-1] += 1

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Let a number be read whenever metrics are asked for."""
        self._gauges[name] = read

    def text(self) -> str:
        """Return everything in Prometheus' format.

        Example:
            >>> metrics = Metrics(); metrics.count("ossicle_x_total", kind="a"); metrics.text()
            '# TYPE ossicle_x_total counter\\nossicle_x_total{kind="a"} 1\\n'
        """
        lines: list[str] = []
        with self._lock:
            _rows(lines, "counter", [(name, labels, value) for (name, labels), value in sorted(self._counts.items())])
            for (name, labels), row in sorted(self._times.items()):
                typed = f"# TYPE {name} histogram"
                lines += [] if typed in lines else [typed]
                bounds = (*map(str, BUCKETS_S), "+Inf")
                for bound, value in zip(bounds, (*row[:-2], row[-1]), strict=True):
                    inside = ",".join(filter(None, (labels, f'le="{bound}"')))
                    lines.append(f"{name}_bucket{{{inside}}} {value:g}")
                braces = f"{{{labels}}}" if labels else ""
                lines += [f"{name}_sum{braces} {row[-2]:.6f}", f"{name}_count{braces} {row[-1]:g}"]
        for name, read in sorted(self._gauges.items()):
            kind = "counter" if name.endswith("_total") else "gauge"
            _rows(lines, kind, [(name, "", read())])
        return "\n".join(lines) + "\n"


def merged(texts: Mapping[int, str]) -> str:
    """Return the metrics of several replicas as one text, every number labelled with the replica it is of.

    Args:
        texts: By replica, from `Metrics.text`; empty for one that cannot be reached.

    Example:
        >>> merged({0: "# TYPE ossicle_x_total counter\\nossicle_x_total 1\\n", 1: ""}).splitlines()[3:]
        ['# TYPE ossicle_x_total counter', 'ossicle_x_total{replica="0"} 1']
    """
    up = [f'ossicle_replica_up{{replica="{number}"}} {int(bool(text))}' for number, text in texts.items()]
    families = {"# TYPE ossicle_replica_up gauge": up}
    for number, text in texts.items():
        rows: list[str] = []
        for line in text.splitlines():
            if line.startswith("#"):
                rows = families.setdefault(line, [])
                continue
            name, _, value = line.rpartition(" ")
            name, _, labels = name.removesuffix("}").partition("{")
            inside = ",".join(filter(None, (f'replica="{number}"', labels)))
            rows.append(f"{name}{{{inside}}} {value}")
    return "\n".join(line for typed, rows in families.items() for line in (typed, *rows)) + "\n"


def _rows(lines: list[str], kind: str, rows: list[tuple[str, str, float]]) -> None:
    for name, labels, value in rows:
        typed = f"# TYPE {name} {kind}"
        lines += [] if typed in lines else [typed]
        lines.append(f"{name}{{{labels}}} {value:g}" if labels else f"{name} {value:g}")


def _labels(labels: dict[str, str]) -> str:
    quoted = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for name, value in labels.items()
    }
    return ",".join(f'{name}="{value}"' for name, value in sorted(quoted.items()))
