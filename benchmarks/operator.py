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
- `owned_restored_p99_seconds`: from the deletion of an object that a deployment owns, Secrets
  included, until it is there again; of all objects of 20 deployments, deleted at once.
- `overlap_writes`: of both operators, in the minute after that, in which a second release begins
  beside the first.
- `degraded_named_share`: of the causes in tests/cluster/support/causes.py, those that Degraded
  tells within two minutes; with controllers, and a node whose pods are stand-ins.
- `soak_diverged`: how many of 200 deployments are, five minutes after 20 minutes of random faults
  (benchmarks/soak.py), not as they would be without.

    PYTHONPATH=.:tests/cluster python -m benchmarks.operator [--quick] [--rounds N] …
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.cluster import Cluster, Settling, Write, body, cluster
from benchmarks.operator_faults import named_share, overlap_writes, restored_seconds
from benchmarks.option import Count, parse
from benchmarks.report import Figure, exact_figure, median_figure, write_report
from benchmarks.soak import soak
from support.desired import SETTING, deployment
from support.status import full_status

from aurora_operator.adapters.authority import secret_names
from aurora_operator.domain.objects import desired_objects
from aurora_operator.domain.rollout.state import Pending
from aurora_operator.domain.status.status_json import status_to_json

LIVE = 20
_MERGE = "application/merge-patch+json"
_QUICK_SOAK_SECONDS = 10.0

Samples = defaultdict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured: numbers of deployments, and seconds."""

    single: int
    many: int
    most: int
    live: int
    quiet_seconds: float
    idle_seconds: float


USUAL = Amount(50, 200, 1000, LIVE, 150.0, 60.0)
QUICK = Amount(2, 3, 4, 2, 0.0, 2.0)


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


def measure_single(samples: Samples, amount: Amount) -> None:
    with cluster() as place:
        # The first one counts, though nothing is warm: a person's first one is no different.
        for name in names(amount.single):
            samples["apply"] += settle(place, [name]).apply_seconds()
        owners = names(amount.single)[: amount.live]
        samples["owned_restored"] += restored_seconds(place, owners)


def measure_many(samples: Samples, amount: Amount, count: int) -> None:
    """Settles `count` deployments at once, then measures idling or restarts with them."""
    with cluster() as place:
        before = place.cpu_seconds()
        samples[f"settle_{count}"].append(settle(place, names(count)).seconds)
        spent = place.cpu_seconds() - before
        samples["cpu_per_deployment"].append(1000 * spent / count)
        if count == amount.most:
            measure_idle(place, samples, amount)
            samples["overlap_writes"].append(overlap_writes(place, amount.idle_seconds))
        else:
            measure_restarts(place, samples, names(amount.live))


def measure_idle(place: Cluster, samples: Samples, amount: Amount) -> None:
    samples["rss"].append(float(place.process.memory_info().rss))
    time.sleep(amount.quiet_seconds)
    place.writes.read()
    began, before = time.monotonic(), place.cpu_seconds()
    time.sleep(amount.idle_seconds)
    spent, seconds = place.cpu_seconds() - before, time.monotonic() - began
    samples["idle_cpu"].append(100 * spent / seconds)
    ours = [write for write in place.writes.read() if write.user == place.operator.user]
    # The leader renews its lease every two seconds.
    samples["idle_writes"].append(float(sum(write.resource != "leases" for write in ours)))


def measure_restarts(place: Cluster, samples: Samples, live: Sequence[str]) -> None:
    began = restart(place, live, place.operator.kill, replicas=2)
    samples["restart_resume"] += [reported - began.started_at for reported in began.reported_at()]
    began = restart(place, live, lambda: None, replicas=3)
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


def restart(
    place: Cluster, live: Sequence[str], end: Callable[[], None], *, replicas: int
) -> Restart:
    """Ends the operator, changes deployments, restarts it and waits for their reconciles."""
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


def figures(samples: Samples, amount: Amount) -> dict[str, Figure]:
    many, most = amount.many, amount.most
    return {
        "apply_p99_seconds": _p99(samples["apply"]),
        f"settle_{many}_seconds": median_figure(samples[f"settle_{many}"], "s"),
        f"settle_{most}_seconds": median_figure(samples[f"settle_{most}"], "s"),
        "cpu_per_deployment_ms": median_figure(samples["cpu_per_deployment"], "ms"),
        f"rss_{most}_bytes": median_figure(samples["rss"], "B"),
        "idle_cpu_percent": median_figure(samples["idle_cpu"], "%"),
        "idle_writes": median_figure(samples["idle_writes"], "1"),
        "restart_resume_seconds": median_figure(samples["restart_resume"], "s"),
        "restart_stopped_seconds": median_figure(samples["restart_stopped"], "s"),
        "owned_restored_p99_seconds": _p99(samples["owned_restored"]),
        "overlap_writes": median_figure(samples["overlap_writes"], "1"),
    }


def _p99(seconds: Sequence[float]) -> Figure:
    value = statistics.quantiles(seconds, n=100, method="inclusive")[98]
    return Figure(value, "s", (min(seconds), max(seconds)))


def main() -> None:
    """Measures, prints, and writes out/bench/operator.json."""
    options = parse(
        __doc__,
        {
            "rounds": Count(3, 1),
            "soak_deployments": Count(200, 4),
            "soak_minutes": Count(20, 0, "how long faults happen; 0: ten seconds"),
        },
    )
    amount = QUICK if options.quick else USUAL
    # As in the chart.
    os.environ["MALLOC_ARENA_MAX"] = "2"
    samples: Samples = defaultdict(list)
    for number in range(1, options.rounds + 1):
        say = functools.partial(_say, f"round {number} of {options.rounds}", samples)
        say(f"{amount.single} deployments, one at a time")
        measure_single(samples, amount)
        say(f"{amount.many} at once", "apply", "owned_restored")
        measure_many(samples, amount, amount.many)
        say(f"{amount.most} at once", f"settle_{amount.many}", "restart_resume", "restart_stopped")
        measure_many(samples, amount, amount.most)
        say("ended", f"settle_{amount.most}", "rss", "idle_cpu", "idle_writes", "overlap_writes")
    found = figures(samples, amount)
    try:
        print("causes that last", flush=True)
        found["degraded_named_share"] = exact_figure(named_share(quick=options.quick), "1")
        seconds = 60.0 * options.soak_minutes or _QUICK_SOAK_SECONDS
        print(f"{options.soak_deployments} deployments and {seconds:.0f} s of faults", flush=True)
        diverged, happened = soak(options.soak_deployments, seconds)
        print(f"{happened} faults happened")
        found["soak_diverged"] = exact_figure(diverged, "1")
    finally:
        load = os.getloadavg()
        print(f"load over 15 minutes: {load[2]:.1f} on {os.cpu_count()} cores")
        write_report("operator", found)


def _say(title: str, samples: Samples, begins: str, *measured: str) -> None:
    """Says what begins, and the medians so far of what was measured."""
    medians = (f"{name} {statistics.median(samples[name]):.3g}" for name in measured)
    print("; ".join((f"{title}: {begins}", *medians)), flush=True)


if __name__ == "__main__":
    main()
