"""The commands of `kubectl aurora`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Annotated, Literal

import typer
import yaml
from rich.console import Group
from rich.live import Live
from rich.text import Text

from aurora_client._cli.run import CommandError
from aurora_client._cli.terminal import console, note, show
from aurora_client._kubectl import view
from aurora_client._kubectl.cluster import Cluster, Json

_REFRESH_SECONDS = 1.0
_ANSWER_SECONDS = 30.0
_LOOK_SECONDS = 0.3
_COMMAND = "aurora.dev/command"
_ENDED = frozenset({"Promoted", "RolledBack", "Inconclusive"})

app = typer.Typer(
    help="See and steer the AuroraDeployments of a cluster.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(help="Of the AuroraDeployment.")]
Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Default: the context's.")]
Context = Annotated[str | None, typer.Option("--context", help="Of the kubeconfig.")]
Kubeconfig = Annotated[
    str | None, typer.Option("--kubeconfig", envvar="KUBECONFIG", help="Access to the cluster.")
]


@app.command()
def get(
    name: Annotated[str | None, typer.Argument(help="One of them; default: list all.")] = None,
    namespace: Namespace = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A")] = False,
    output: Annotated[
        Literal["json", "yaml"] | None, typer.Option("--output", "-o", help="As it is stored.")
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List deployments, or tell the story of one: drafts, rollout, evidence, pods."""
    cluster = Cluster(namespace, context, kubeconfig)
    if name is None:
        bodies = cluster.deployments(everywhere=everywhere)
        if output is not None:
            _write({"apiVersion": "v1", "kind": "List", "items": list(bodies)}, output)
        elif bodies:
            show(view.deployments_table(bodies, with_namespace=everywhere))
        else:
            show("no AuroraDeployments" + ("" if everywhere else f" in {cluster.namespace}"))
        return
    body = cluster.deployment(name)
    if output is not None:
        _write(body, output)
    else:
        show(view.story(body, cluster.pods(name)))


@app.command()
def watch(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Keep telling the story of a deployment until interrupted."""
    cluster = Cluster(namespace, context, kubeconfig)
    # Who cannot be reached at the start is not there: that ends the command.
    story = view.story(cluster.deployment(name), cluster.pods(name))
    with Live(story, console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH_SECONDS)
            try:
                story = view.story(cluster.deployment(name), cluster.pods(name))
                live.update(story, refresh=True)
            except CommandError as error:
                problem = Text(f"{error}; this is what was seen last", style="red")
                live.update(Group(problem, story), refresh=True)


@app.command()
def promote(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Promote the candidate without waiting for the evidence."""
    _order(Cluster(namespace, context, kubeconfig), name, "promote")


@app.command()
def abort(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Roll back to the stable draft."""
    _order(Cluster(namespace, context, kubeconfig), name, "abort")


@app.command()
def pause(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Hold the rollout where it is, and begin no other."""
    _set_paused(Cluster(namespace, context, kubeconfig), name, paused=True)


@app.command()
def resume(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Go on with a paused rollout."""
    _set_paused(Cluster(namespace, context, kubeconfig), name, paused=False)


@app.command()
def drafts(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the drafts that a deployment knows, and what became of them."""
    show(view.drafts(Cluster(namespace, context, kubeconfig).deployment(name)))


@app.command()
def logs(
    name: Name,
    component: Annotated[
        Literal["inference", "buffer", "trainer", "gradient", "redis"],
        typer.Option("--component", "-c", help="Whose log."),
    ] = "inference",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines.")] = None,
    pod: Annotated[str | None, typer.Option(help="One of several; default: the first.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print a component's log."""
    cluster = Cluster(namespace, context, kubeconfig)
    # Redis lives in the buffer's pod, and what computes gradients is a trainer too.
    label = "buffer" if component == "redis" else component
    container = "trainer" if component == "gradient" else component
    names = [
        found["metadata"]["name"]
        for found in cluster.pods(name)
        if found["metadata"]["labels"]["app.kubernetes.io/component"] == label
        and pod in (None, found["metadata"]["name"])
    ]
    if not names:
        cluster.deployment(name)
        raise CommandError(f"{name} has no {component} pod" + (f" {pod}" if pod else ""))
    if len(names) > 1:
        note(
            f"of {len(names)} pods this is {names[0]}; --pod takes another: {', '.join(names[1:])}"
        )
    for chunk in cluster.log(names[0], container, follow=follow, tail=tail):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def _order(cluster: Cluster, name: str, order: str) -> None:
    """Annotates the deployment and waits for the operator's answer."""
    rollout = cluster.deployment(name).get("status", {}).get("rollout") or {}
    if not rollout or rollout["state"] in _ENDED:
        raise CommandError(f"{name} has no rollout in progress: nothing to {order}")
    request = f"{order}/{rollout['id']}"
    cluster.patch(name, {"metadata": {"annotations": {_COMMAND: request}}})

    def answer(body: Json) -> Json | None:
        found: Json = body.get("status", {}).get("lastCommand") or {}
        return found if found.get("request") == request else None

    found = _awaited(cluster, name, answer, f"{request} was asked for")
    if found["outcome"] != "Done":
        raise CommandError(f"{request} was refused: {found.get('message') or 'no reason given'}")
    show(f"{request}: done")


def _set_paused(cluster: Cluster, name: str, *, paused: bool) -> None:
    cluster.patch(name, {"spec": {"rollout": {"paused": paused}}})
    show(f"{name} {'paused' if paused else 'resumed'}")


def _awaited(
    cluster: Cluster, name: str, answer: Callable[[Json], Json | None], asked: str
) -> Json:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while time.monotonic() < deadline:
        if (found := answer(cluster.deployment(name))) is not None:
            return found
        time.sleep(_LOOK_SECONDS)
    raise CommandError(
        f"{asked}, and no answer came within {_ANSWER_SECONDS:.0f} s: does the operator run?"
    )


def _write(content: Json, output: str) -> None:
    for body in content.get("items", [content]):
        # Who wrote which field is of no use to people: kubectl leaves it out as well.
        body["metadata"].pop("managedFields", None)
    if output == "json":
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        yaml.safe_dump(content, sys.stdout, sort_keys=False)
