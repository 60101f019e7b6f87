"""Many deployments and random faults: whether all end in the state that they have without faults.

Every second or two one of these happens: the operator is killed and started again, as a kubelet
does; the API server answers with 409, 429 and 500, loses answers, answers with old lists, or loses,
cuts and ends watches; objects are deleted; a deployment's spec changes; the operator's wall clock
jumps by up to half an hour. In the end there are no faults, and deployments of the same specs are
created beside: one that differs from its twin after the limit has diverged.
"""

from __future__ import annotations

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.clock import WallClock
from benchmarks.cluster import api_server, body
from support.deployments import Deployments
from support.operator_process import OperatorProcess, install_rights
from support.proxy import ApiFaults, FaultyProxy

from aurora_operator.cluster.kinds import INSTANCE, SECRET, WATCHED

Json = dict[str, Any]

_KINDS = (*WATCHED, SECRET)
_HEAL_SECONDS = 300.0
_POLL_SECONDS = 2.0
_MOST_JUMP_SECONDS = 1800
_MOST_DELETED = 10
# Of a CA that is being succeeded, as one is whose time has not come because the clock went back.
_OF_SUCCESSION = frozenset({"next.crt", "next.key", "previous.crt", "since"})
# Of a deployment without an embedded Redis, TLS and a trainer that runs.
_FEWEST_OBJECTS = 10
# Of a deployment's spec, one of which each has in the end.
VARIANTS: tuple[Json, ...] = (
    {},
    {"replicas": 3},
    {"inference": {"autoscaling": {"maxReplicas": 3}}},
    {"inference": {"maxBatch": 2, "podTemplate": {"metadata": {"labels": {"team": "a"}}}}},
    {"trainer": {"suspend": True}},
    {"trainer": {"replicas": 2}, "security": {"trainerTraffic": "Plaintext"}},
    {"buffer": {"external": {"url": "redis://redis/0"}}},
    {"security": {"tls": {"mode": "Disabled"}}},
)
_FAULTS = (
    ApiFaults(),
    ApiFaults(refusals={429: 0.4}),
    ApiFaults(refusals={409: 0.2, 500: 0.2}),
    ApiFaults(lost=0.2),
    ApiFaults(dropped=0.2, cut=0.1, delay_seconds=0.1),
    ApiFaults(expired=0.5, cut=0.2),
    ApiFaults(stale=0.5),
)


class Soak:
    """`count` deployments behind a faulty proxy; `play`, then `diverged`."""

    def __init__(
        self,
        deployments: Deployments,
        operator: OperatorProcess,
        proxy: FaultyProxy,
        clock: WallClock,
    ) -> None:
        self._deployments = deployments
        self._operator = operator
        self._proxy = proxy
        self._clock = clock
        self._draw = random.Random(0)
        # Each deployment's variant, by its number.
        self._variants: dict[str, int] = {}

    def create(self, count: int) -> None:
        names = [f"soak-{number:03}" for number in range(count)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self._apply(name, 0), names))

    def play(self, seconds: float) -> int:
        """Lets faults happen for so long; returns how many did."""
        until, happened = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            happen = self._draw.choice(
                (self._kill, self._refuse, self._refuse, self._delete, self._change, self._jump)
            )
            happen()
            happened += 1
            # It also exits by itself if it cannot renew its Lease.
            self._keep_running()
            time.sleep(self._draw.uniform(0.5, 2.0))
        self._proxy.reset()
        self._clock.jump(0)
        self._keep_running()
        return happened

    def diverged(self) -> list[str]:
        """The deployments that differ from their twins once the limit is over."""
        waiting = dict(self._variants)
        for variant in set(waiting.values()):
            self._apply(_twin(variant), variant)
        deadline = time.monotonic() + _HEAL_SECONDS
        while waiting and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            self._keep_running()
            found = self._states()
            waiting = {
                name: variant
                for name, variant in waiting.items()
                if not _is_like(found[name], found[_twin(variant)])
            }
        return sorted(waiting)

    def _apply(self, name: str, variant: int) -> None:
        spec = {**body(name)["spec"], **VARIANTS[variant]}
        self._deployments.apply(name, **spec)
        if name != _twin(variant):
            self._variants[name] = variant

    def _keep_running(self) -> None:
        if not self._operator.runs:
            self._operator.restart(wait=False)

    def _kill(self) -> None:
        self._operator.kill()
        self._operator.restart(wait=False)

    def _refuse(self) -> None:
        self._proxy.faults = self._draw.choice(_FAULTS)

    def _delete(self) -> None:
        for kind in self._draw.sample(_KINDS, 3):
            found = self._deployments.objects(kind.api_version, kind.plural, INSTANCE)
            count = min(len(found), self._draw.randint(1, _MOST_DELETED))
            for each in self._draw.sample(found, count):
                name = each["metadata"]["name"]
                self._deployments.delete_object(kind.api_version, kind.plural, name)

    def _change(self) -> None:
        name = self._draw.choice(sorted(self._variants))
        self._apply(name, self._draw.randrange(len(VARIANTS)))

    def _jump(self) -> None:
        self._clock.jump(self._draw.randint(-_MOST_JUMP_SECONDS, _MOST_JUMP_SECONDS))

    def _states(self) -> dict[str, Json]:
        """What belongs to each deployment, and whether its newest spec was observed."""
        found = self._deployments.objects("aurora.dev/v1alpha1", "auroradeployments")
        uids = {each["metadata"]["name"]: each["metadata"]["uid"] for each in found}
        states: dict[str, Json] = {
            each["metadata"]["name"]: {
                "observed": each.get("status", {}).get("observedGeneration")
                == each["metadata"]["generation"]
            }
            for each in found
        }
        for kind in _KINDS:
            for each in self._deployments.objects(kind.api_version, kind.plural, INSTANCE):
                name = each["metadata"]["labels"][INSTANCE]
                place = each["metadata"]["name"].replace(name, "NAME")
                states[name][f"{kind.kind} {place}"] = _comparable(each, name, uids[name])
        return states


def _twin(variant: int) -> str:
    return f"twin-{variant}"


def _comparable(found: Json, name: str, uid: str) -> Json:
    """An object without its deployment's name and what differs each time."""
    metadata = found["metadata"]
    spec = dict(found.get("spec", {}))
    for key in ("clusterIP", "clusterIPs"):
        if spec.get(key) not in (None, "None", ["None"]):
            spec.pop(key, None)
    content = {
        "spec": spec,
        "labels": metadata.get("labels"),
        "owned": [each["uid"] == uid for each in metadata.get("ownerReferences", ())],
        "data": sorted((found.get("data") or {}).keys() - _OF_SUCCESSION),
    }
    anonymous: Json = json.loads(json.dumps(content).replace(name, "NAME"))
    return anonymous


def _is_like(found: Json, twin: Json) -> bool:
    """Whether a deployment has all that its whole twin has, and nothing else but former Secrets."""
    is_scaled = any(place.startswith("HorizontalPodAutoscaler") for place in twin)
    if is_scaled:
        found, twin = (_without_replicas(state) for state in (found, twin))
    surplus = [place for place in found.keys() - twin.keys() if not place.startswith("Secret ")]
    is_whole = twin["observed"] and len(twin) > _FEWEST_OBJECTS
    return is_whole and not surplus and all(found.get(place) == twin[place] for place in twin)


def _without_replicas(state: Json) -> Json:
    """An autoscaler's are whatever they were when it took over."""
    place = "Deployment NAME-inference"
    if place not in state:
        return state
    content = state[place]
    spec = {key: value for key, value in content["spec"].items() if key != "replicas"}
    return {**state, place: {**content, "spec": spec}}


def soak(count: int, seconds: float) -> tuple[int, int]:
    """The number of deployments that diverged, and of what happened to them."""
    with api_server() as (server, programs, folder):
        clock = WallClock(folder)
        proxy = FaultyProxy(server)
        user = install_rights(server, programs / "helm", server.create_namespace("aurora-system"))
        operator = OperatorProcess(
            server, user, folder, url=proxy.url, environment=clock.environment
        )
        try:
            operator.start()
            found = Soak(
                Deployments(server, server.create_namespace("soak")), operator, proxy, clock
            )
            found.create(count)
            happened = found.play(seconds)
            diverged = found.diverged()
        finally:
            operator.stop()
            proxy.close()
        if diverged:
            print(f"diverged: {', '.join(diverged)}\n{operator.log()}")
    return len(diverged), happened
