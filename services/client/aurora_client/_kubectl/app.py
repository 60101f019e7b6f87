"""The commands of `kubectl aurora`."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Literal

import typer
import yaml
from rich.console import Group
from rich.live import Live
from rich.text import Text

from aurora_client._cli.rollout import AnyRollout, OutputForm, show_explanation, show_history
from aurora_client._cli.run import CommandError
from aurora_client._cli.terminal import console, note, show
from aurora_client._cli.version import Version
from aurora_client._kubectl import view
from aurora_client._kubectl.attach import (
    Attachment,
    attachment_of,
    container_of,
    missing,
    patch,
)
from aurora_client._kubectl.cluster import Cluster, Json
from aurora_client._kubectl.order import order, set_paused
from aurora_common.version import VERSION

_REFRESH_SECONDS = 1.0

app = typer.Typer(
    help="Inspect and steer the AuroraDeployments of a cluster.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

Name = Annotated[str, typer.Argument(help="Name of the AuroraDeployment.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Default: that of the context.")
]
Context = Annotated[str | None, typer.Option("--context", help="Context of the kubeconfig.")]
Kubeconfig = Annotated[
    str | None, typer.Option("--kubeconfig", envvar="KUBECONFIG", help="Path to the kubeconfig.")
]


@app.callback()
def kubectl_aurora(_: Version = False) -> None:
    """Inspect and steer the AuroraDeployments of a cluster."""


@app.command()
def get(
    name: Annotated[str | None, typer.Argument(help="Show one; default: list all.")] = None,
    namespace: Namespace = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A")] = False,
    output: Annotated[
        Literal["json", "yaml"] | None,
        typer.Option("--output", "-o", help="Print the objects as stored."),
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List deployments, or show one: drafts, rollout, evidence, pods."""
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
    """Show a deployment, refreshed until interrupted."""
    cluster = Cluster(namespace, context, kubeconfig)
    # Unreachable at the start: fail at once rather than wait.
    story = view.story(cluster.deployment(name), cluster.pods(name))
    with Live(story, console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH_SECONDS)
            try:
                story = view.story(cluster.deployment(name), cluster.pods(name))
                live.update(story, refresh=True)
            except CommandError as error:
                problem = Text(f"{error}; showing the last known state", style="red")
                live.update(Group(problem, story), refresh=True)


@app.command()
def promote(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Promote the candidate without waiting for the evidence."""
    order(Cluster(namespace, context, kubeconfig), name, "promote")


@app.command()
def abort(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Roll back to the stable draft."""
    order(Cluster(namespace, context, kubeconfig), name, "abort")


@app.command()
def pause(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Hold the rollout at its step and start no other."""
    set_paused(Cluster(namespace, context, kubeconfig), name, paused=True)


@app.command()
def resume(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Resume a suspended deployment, or else its paused rollout."""
    cluster = Cluster(namespace, context, kubeconfig)
    spec = cluster.deployment(name)["spec"]
    if not spec.get("suspend"):
        set_paused(cluster, name, paused=False)
        return
    cluster.patch(name, {"spec": {"suspend": False}})
    held = "; its rollouts are paused: resume again" if spec["rollout"].get("paused") else ""
    show(f"{name} resumed{held}")


@app.command()
def suspend(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Stop all pods of a deployment; its drafts, rollout, claims and Services stay."""
    Cluster(namespace, context, kubeconfig).patch(name, {"spec": {"suspend": True}})
    show(f"{name} suspended")


@app.command()
def drafts(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List a deployment's known drafts and their outcomes."""
    show(view.drafts(Cluster(namespace, context, kubeconfig).deployment(name)))


@app.command()
def history(
    name: Name,
    output: OutputForm = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List a deployment's rollouts, newest first: verdicts, reasons, effects."""
    body = Cluster(namespace, context, kubeconfig).deployment(name)
    show_history(view.read_deployment(body), output)


@app.command()
def explain(
    name: Name,
    rollout: AnyRollout = "",
    output: OutputForm = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say why a rollout ended, or what it waits for: each clause of the rule."""
    body = Cluster(namespace, context, kubeconfig).deployment(name)
    show_explanation(view.read_deployment(body), rollout, output)


@app.command()
def attach(
    name: Annotated[
        str | None, typer.Argument(help="An AuroraDeployment with spec.engine.attach.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what each pod lacks; exit with 1 if any does.")
    ] = False,
    selector: Annotated[
        str | None,
        typer.Option("--selector", "-l", help="Without NAME: the labels of vLLM's pods."),
    ] = None,
    claim: Annotated[
        str | None, typer.Option(help="Without NAME: the claim of modelStore.pvc.")
    ] = None,
    port: Annotated[int, typer.Option(help="Without NAME: vLLM's port.")] = 8000,
    key: Annotated[
        str, typer.Option(metavar="SECRET/KEY", help="Without NAME: where vLLM's API key is.")
    ] = "vllm/api-key",
    image: Annotated[
        str, typer.Option(help="The image that brings the plugin.")
    ] = f"aurora-inference:{VERSION}",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the patch that a vLLM of yours needs to be attached, or check its pods."""
    cluster = Cluster(namespace, context, kubeconfig)
    if name is not None:
        wanted = attachment_of(cluster.deployment(name), image)
    elif selector is None or claim is None:
        raise CommandError("name an AuroraDeployment, or give --selector and --claim")
    else:
        secret, _, secret_key = key.partition("/")
        wanted = Attachment(selector, port, claim, secret, secret_key or "api-key", image)
    pods = cluster.selected_pods(wanted.selector)
    if not pods:
        raise CommandError(f"no pod in {cluster.namespace} has the labels {wanted.selector}")
    containers = [container_of(pod, wanted.port) for pod in pods]
    if not check:
        yaml.safe_dump(patch(containers[0], wanted), sys.stdout, sort_keys=False)
        return
    lacking = {
        container.pod["metadata"]["name"]: missing(container, wanted) for container in containers
    }
    show(view.attachable(lacking))
    if any(lacking.values()):
        raise typer.Exit(1)


@app.command()
def logs(
    name: Name,
    component: Annotated[
        Literal["inference", "buffer", "trainer", "rank", "redis"],
        typer.Option("--component", "-c", help="The component."),
    ] = "inference",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stream the log.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last N lines.")] = None,
    pod: Annotated[str | None, typer.Option(help="Its pod; default: the first.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print a component's log."""
    cluster = Cluster(namespace, context, kubeconfig)
    # Redis runs in the buffer's pod; a rank's container is called trainer.
    label = "buffer" if component == "redis" else component
    container = "trainer" if component == "rank" else component
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
        note(f"showing {names[0]} of {len(names)} pods; choose with --pod: {', '.join(names[1:])}")
    for chunk in cluster.log(names[0], container, follow=follow, tail=tail):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def _write(content: Json, output: str) -> None:
    for body in content.get("items", [content]):
        # kubectl omits it as well.
        body["metadata"].pop("managedFields", None)
    if output == "json":
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        yaml.safe_dump(content, sys.stdout, sort_keys=False)
