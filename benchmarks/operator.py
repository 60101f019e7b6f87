"""How fast the operator reconciles AuroraDeployments, and what many of them cost.

A real etcd and API server, without controller manager, scheduler and nodes: this measures the
operator, and an API server on the same machine, not a cluster. All times are the API server's, by
its audit log. No pod is ever created, so no deployment becomes ready: it settles once its last
child is applied and its status is written.

- `apply_p99_seconds`: from `kubectl apply` to the last child, one deployment at a time; the spread
  is that of all of them.
- `settle_200_seconds`, `settle_1000_seconds`: from the first to the last of as many at once.
- `cpu_per_deployment_ms`: the operator's processor time for each of those.
- `rss_1000_bytes`: the operator's memory once 1,000 are settled.
- `idle_cpu_percent`, `idle_writes`: of one core, and of the operator, in a minute that begins when
  all 1,000 have been left alone for 150 s. By then the operator checks every five minutes why
  pods are missing; its resync of all deployments, every ten minutes, goes on.
- `restart_resume_seconds`: with 200 deployments, 20 of them in a rollout, the operator is killed
  and restarted, as a kubelet restarts a container; from the start of the process to the first
  reconcile of each rollout (all generations changed meanwhile, so each reconcile writes a status).
  `restart_stopped_seconds` is the same after SIGTERM.

    PYTHONPATH=.:tests/cluster python -m benchmarks.operator [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.cluster import Cluster, Settling, Write, body, cluster
from benchmarks.report import Figure, median_figure, write_report
from support.desired import SETTING, deployment
from support.status import full_status

from aurora_operator.adapters.authority import secret_names
from aurora_operator.domain.objects import desired_objects
from aurora_operator.domain.rollout.state import Pending
from aurora_operator.domain.status.status_json import status_to_json

SINGLE = 50
MANY = 200
MOST = 1000
LIVE = 20
QUIET_SECONDS = 150.0
IDLE_SECONDS = 60.0
_MERGE = "application/merge-patch+json"

Samples = defaultdict[str, list[float]]


def children() -> int:
    """The number of objects of such a deployment."""
    return len(desired_objects(deployment(), SETTING)) + len(secret_names("chat"))


def names(count: int) -> list[str]:
    return [f"bench-{number:04}" for number in range(count)]


def settle(place: Cluster, wanted: Sequence[str]) -> Settling:
    """Creates deployments and waits until all are settled."""
    settling = Settling(place.operator.user, wanted, children())
    place.create([body(name) for name in wanted])
    place.follow(settling.take, lambda: settling.is_over)
    return settling


def measure_single(samples: Samples) -> None:
    with cluster() as place:
        # The first one counts, though nothing is warm: a person's first one is no different.
        for name in names(SINGLE):
            samples["apply"] += settle(place, [name]).apply_seconds()


def measure_many(samples: Samples, count: int) -> None:
    """Settles `count` deployments at once, then measures idling or restarts with them."""
    with cluster() as place:
        before = place.cpu_seconds()
        samples[f"settle_{count}"].append(settle(place, names(count)).seconds)
        spent = place.cpu_seconds() - before
        samples["cpu_per_deployment"].append(1000 * spent / count)
        if count == MOST:
            measure_idle(place, samples)
        else:
            measure_restarts(place, samples)


def measure_idle(place: Cluster, samples: Samples) -> None:
    samples["rss"].append(float(place.process.memory_info().rss))
    time.sleep(QUIET_SECONDS)
    place.writes.read()
    began, before = time.monotonic(), place.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    spent, seconds = place.cpu_seconds() - before, time.monotonic() - began
    samples["idle_cpu"].append(100 * spent / seconds)
    ours = [write for write in place.writes.read() if write.user == place.operator.user]
    # The leader renews its lease every two seconds.
    samples["idle_writes"].append(float(sum(write.resource != "leases" for write in ours)))


def measure_restarts(place: Cluster, samples: Samples) -> None:
    began = restart(place, place.operator.kill, replicas=2)
    samples["restart_resume"] += [reported - began.started_at for reported in began.reported_at()]
    began = restart(place, lambda: None, replicas=3)
    samples["restart_stopped"] += [reported - began.started_at for reported in began.reported_at()]


class Restart:
    """An operator's start, until it reconciled each of some rollouts."""

    def __init__(self, live: Sequence[str]) -> None:
        self.started_at = time.time()
        self._live = live
        self._reported: dict[str, float] = {}

    def take(self, write: Write) -> None:
        if write.subresource == "status" and write.name in self._live:
            self._reported.setdefault(write.name, write.answered_at)

    @property
    def is_over(self) -> bool:
        return self._reported.keys() == set(self._live)

    def reported_at(self) -> list[float]:
        return list(self._reported.values())


def restart(place: Cluster, end: Callable[[], None], *, replicas: int) -> Restart:
    """Ends the operator, changes deployments, restarts it and waits for their reconciles."""
    live = names(LIVE)
    end()
    place.operator.stop()
    for name in live:
        status = json.loads(status_to_json(full_status(Pending())))
        patch(place, f"{place.path}/{name}/status", {"status": status})
        patch(place, f"{place.path}/{name}", {"spec": {"replicas": replicas}})
    place.writes.read()
    began = Restart(live)
    place.operator.start(wait=False)
    place.follow(began.take, lambda: began.is_over)
    return began


def patch(place: Cluster, path: str, content: dict[str, Any]) -> None:
    """A merge patch by another writer than the operator."""
    client = place.server.client
    answer = client.rest_client.pool_manager.request(
        "PATCH",
        f"{client.configuration.host}{path}",
        body=json.dumps(content),
        headers={"Content-Type": _MERGE},
    )
    if answer.status >= 300:
        raise RuntimeError(answer.data.decode())


def figures(samples: Samples) -> dict[str, Figure]:
    single = samples["apply"]
    return {
        "apply_p99_seconds": Figure(
            statistics.quantiles(single, n=100, method="inclusive")[98],
            "s",
            (min(single), max(single)),
        ),
        f"settle_{MANY}_seconds": median_figure(samples[f"settle_{MANY}"], "s"),
        f"settle_{MOST}_seconds": median_figure(samples[f"settle_{MOST}"], "s"),
        "cpu_per_deployment_ms": median_figure(samples["cpu_per_deployment"], "ms"),
        f"rss_{MOST}_bytes": median_figure(samples["rss"], "B"),
        "idle_cpu_percent": median_figure(samples["idle_cpu"], "%"),
        "idle_writes": median_figure(samples["idle_writes"], "1"),
        "restart_resume_seconds": median_figure(samples["restart_resume"], "s"),
        "restart_stopped_seconds": median_figure(samples["restart_stopped"], "s"),
    }


def main() -> None:
    """Measures, prints, and writes out/bench/operator.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    # As in the chart.
    os.environ["MALLOC_ARENA_MAX"] = "2"
    samples: Samples = defaultdict(list)
    for _ in range(options.rounds):
        measure_single(samples)
        measure_many(samples, MANY)
        measure_many(samples, MOST)
    load = os.getloadavg()
    print(f"load over 15 minutes: {load[2]:.1f} on {os.cpu_count()} cores")
    write_report("operator", figures(samples))


if __name__ == "__main__":
    main()
