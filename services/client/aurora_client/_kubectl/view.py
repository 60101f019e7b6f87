"""Renders a cluster's deployments as a table, and one of them as a tree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from aurora_client._cli.shape import plain_table
from aurora_client._cli.status_view import condition_text, drafts_table, history_table
from aurora_client._deployment import Deployment
from aurora_client._status_json import parse_status

Json = dict[str, Any]

_COMPONENTS = ("inference", "buffer", "trainer")
# Present only if a deployment has several trainers.
_RANK = "rank"


def read_deployment(body: Json) -> Deployment:
    """The deployment as the API server stores it; raises BadResponseError if its status is none."""
    metadata, status = body["metadata"], json.dumps(body.get("status", {}))
    return Deployment(
        name=metadata["name"],
        namespace=metadata["namespace"],
        is_paused=body["spec"].get("rollout", {}).get("paused") is True,
        components=(),
        status=parse_status(status),
        status_json=status,
    )


def attachable(lacking: Mapping[str, Sequence[str]]) -> RenderableType:
    """What each pod lacks, pods that lack the same together."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for pod, found in lacking.items():
        alike.setdefault(tuple(found), []).append(pod)
    shown: list[RenderableType] = []
    for found, pods in alike.items():
        verdict = Text("lacks", style="red") if found else Text("can be attached", style="green")
        tree = Tree(Text.assemble(", ".join(pods), "  ", verdict))
        for each in found:
            tree.add(Text(each))
        shown.append(tree)
    return Group(*shown)


def deployments_table(bodies: Sequence[Json], *, with_namespace: bool) -> Table:
    """One row per deployment, as in kubectl."""
    headers = ["NAME", "READY", "REASON", "STABLE", "CANDIDATE", "STATE", "EVIDENCE", "AGE"]
    table = plain_table(*(["NAMESPACE", *headers] if with_namespace else headers))
    for body in bodies:
        deployment = read_deployment(body)
        status, rollout = deployment.status, deployment.rollout
        evidence = rollout.evidence if rollout else None
        judged = ""
        if evidence is not None:
            judged = f"{evidence.promoting_log_e:.2f}/{evidence.promotion_threshold:.2f}"
            # As an earlier operator stored it.
            if not evidence.promotion_threshold:
                judged = f"{evidence.log_e:.2f}/{evidence.threshold:.2f}"
        row = [
            deployment.name,
            f"{status.ready_replicas or 0}/{status.replicas or 0}",
            next((each.reason for each in status.conditions if each.type == "Ready"), ""),
            deployment.stable.checkpoint if deployment.stable else "",
            rollout.candidate.checkpoint if rollout and rollout.candidate else "",
            rollout.state if rollout else "",
            judged,
            age(body["metadata"]["creationTimestamp"]),
        ]
        table.add_row(*([deployment.namespace, *row] if with_namespace else row))
    return table


def story(body: Json, pods: Sequence[Json]) -> RenderableType:
    """Everything about one deployment: conditions, drafts, rollout and pods."""
    deployment = read_deployment(body)
    tree = Tree(Text(f"{deployment.namespace}/{deployment.name}", style="bold"))
    for condition in deployment.conditions:
        if (text := condition_text(condition)).plain:
            tree.add(text)
    tree.add(drafts_table(deployment))
    if (command := deployment.status.last_command) is not None:
        refusal = f": {command.message}" if command.message else ""
        tree.add(f"last command  {command.request}  {command.outcome}{refusal}")
    has_ranks = any(_component(pod) == _RANK for pod in pods)
    for component in (*_COMPONENTS, _RANK) if has_ranks else _COMPONENTS:
        mine = [pod for pod in pods if _component(pod) == component]
        branch = tree.add(component if mine else f"{component}  no pod")
        for pod in mine:
            branch.add(_pod(pod))
    if not deployment.history:
        return tree
    return Group(tree, Text(), history_table(deployment.history))


def drafts(body: Json) -> Table:
    """The drafts in the status and their roles or outcomes; newest first."""
    deployment = read_deployment(body)
    table = plain_table("draft", "role", "reason", "digest")
    rollout = deployment.rollout
    rows: dict[str, tuple[str, str, str, str]] = {}
    if deployment.queued is not None:
        rows[deployment.queued.digest] = (deployment.queued.checkpoint, "queued", "", "cyan")
    if rollout is not None and rollout.candidate is not None:
        rows.setdefault(
            rollout.candidate.digest, (rollout.candidate.checkpoint, rollout.state, "", "cyan")
        )
    for past in deployment.history:
        rows[past.digest] = (past.checkpoint, past.outcome, past.reason, "")
    for each in deployment.status.retained:
        share = f"serves {each.share_percent}% of the tokens"
        rows[each.digest] = (each.checkpoint, "retained", share, "")
    if deployment.stable is not None:
        rows[deployment.stable.digest] = (deployment.stable.checkpoint, "stable", "", "green")
    for digest, (name, role, reason, style) in rows.items():
        table.add_row(name, role, reason, digest, style=style)
    return table


def age(created: str) -> str:
    """The age in kubectl's format."""
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{max(seconds, 0)}s"


def _component(pod: Json) -> str:
    return str(pod["metadata"].get("labels", {}).get("app.kubernetes.io/component", ""))


def _pod(pod: Json) -> Text:
    status = pod.get("status", {})
    containers = status.get("containerStatuses", [])
    ready = sum(1 for one in containers if one.get("ready"))
    restarts = sum(one.get("restartCount", 0) for one in containers)
    is_ready = bool(containers) and ready == len(containers)
    text = Text(str(pod["metadata"]["name"]), style="green" if is_ready else "yellow")
    text.append(f"  {ready}/{len(containers) or len(pod['spec']['containers'])} ready", "default")
    if "deletionTimestamp" in pod["metadata"]:
        text.append("  terminating")
    elif not is_ready:
        text.append(f"  {_why(status)}")
    if restarts:
        text.append(f"  {restarts} restarts", "yellow")
    return text.append(f"  {age(pod['metadata']['creationTimestamp'])}", "dim")


def _why(status: Json) -> str:
    for one in status.get("containerStatuses", []):
        waiting = one.get("state", {}).get("waiting", {})
        if waiting.get("reason"):
            return str(waiting["reason"])
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason')}: {condition.get('message')}"
    return str(status.get("phase", "Unknown"))
