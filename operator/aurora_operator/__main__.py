"""`python -m aurora_operator up …` for one machine (it starts `run …`), or `cluster …`."""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from aurora_common import leash, log
from aurora_common.errors import REFUSED, AuroraError, InvalidInputError
from aurora_common.flag import add_version_flag, address, listen_clash, port
from aurora_operator.domain.objects.metadata import MANAGER
from aurora_operator.domain.objects.setting import PullPolicy, Setting
from aurora_operator.local.guardian import LocalOptions, guard
from aurora_operator.local.operator import LocalOperator

_OPERATOR_LABELS = {
    "app.kubernetes.io/name": "aurora",
    "app.kubernetes.io/component": "operator",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status; errors go to stderr."""
    parsed = _parser().parse_args(arguments)
    log.configure("WARNING" if parsed.command == "up" else "INFO", backs_off=True)
    match parsed.command:
        case "up":
            return _up(parsed)
        case "cluster":
            return _cluster(parsed)
        case _:
            return _run(parsed)


def _up(parsed: argparse.Namespace) -> int:
    try:
        return guard(_local_options(parsed))
    except AuroraError as error:
        sys.stderr.write(f"aurora: {error}\n")
        return 1


def _run(parsed: argparse.Namespace) -> int:
    leash.follow()
    try:
        return asyncio.run(_operate(_local_options(parsed)))
    except AuroraError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _cluster(parsed: argparse.Namespace) -> int:
    # Imported here: `up` and `run` need no Kubernetes client.
    from aurora_operator.cluster.process import ClusterOptions, operate

    setting = Setting(
        inference_image=parsed.inference_image,
        buffer_image=parsed.buffer_image,
        trainer_image=parsed.trainer_image,
        operator_namespace=parsed.lease_namespace,
        # Of all releases of the chart: one namespace holds the operators of one installation.
        operator_labels=_OPERATOR_LABELS,
        image_pull_policy=parsed.image_pull_policy,
        image_pull_secrets=tuple(parsed.image_pull_secret),
    )
    options = ClusterOptions(
        setting=setting,
        lease_namespace=parsed.lease_namespace,
        lease_name=parsed.lease_name,
        namespaces=tuple(parsed.namespace),
        health_listen=parsed.health_listen,
        metrics_listen=parsed.metrics_listen,
        kubeconfig=parsed.kubeconfig,
        notify_url_file=parsed.notify_url_file,
        identity=parsed.identity or f"{socket.gethostname()}_{uuid.uuid4()}",
    )
    try:
        flags = {
            "--health-listen": options.health_listen,
            "--metrics-listen": options.metrics_listen,
        }
        if problem := listen_clash(flags):
            raise InvalidInputError(problem)
        return asyncio.run(operate(options))
    except AuroraError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _local_options(parsed: argparse.Namespace) -> LocalOptions:
    return LocalOptions(
        manifest=parsed.manifest,
        data_dir=parsed.data_dir,
        http_port=parsed.http_port,
        grpc_port=parsed.grpc_port,
        notify_url_file=parsed.notify_url_file,
    )


async def _operate(options: LocalOptions) -> int:
    try:
        operator = LocalOperator(options)
    except AuroraError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    refusal = await operator.run()
    if refusal:
        sys.stderr.write(f"{refusal}\n")
    return REFUSED if refusal else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aurora_operator",
        description="Runs one AuroraDeployment as local processes, or those of a cluster.",
        allow_abbrev=False,
    )
    add_version_flag(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="run a deployment until SIGTERM or Ctrl-C")
    up.add_argument(
        *("-f", "--manifest"),
        type=Path,
        required=True,
        metavar="FILE",
        help="an AuroraDeployment, YAML or JSON; -: standard input",
    )
    _add_common(up, http_port=8000, grpc_port=9000)
    run = commands.add_parser("run", help="the operator process of a running `up`")
    run.add_argument("--manifest", type=Path, required=True, metavar="FILE")
    _add_common(run, http_port=None, grpc_port=None)
    _add_cluster(commands.add_parser("cluster", help="run the deployments of a Kubernetes cluster"))
    return parser


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="where deployments are run; may be repeated; default: every namespace",
    )
    parser.add_argument("--lease-namespace", required=True, metavar="NAME")
    parser.add_argument(
        "--lease-name",
        default=MANAGER,
        metavar="NAME",
        help="the Lease that this installation's replicas share: another one for each set of "
        "--namespace in the lease's namespace; default: %(default)s",
    )
    parser.add_argument(
        "--identity",
        metavar="NAME",
        help="of the lease's holder: unique among running operators; if it is the same after a "
        "restart, the operator need not wait for the lease to expire; default: the host's name and "
        "a random UUID",
    )
    for component in ("inference", "buffer", "trainer"):
        parser.add_argument(f"--{component}-image", required=True, metavar="IMAGE")
    parser.add_argument(
        "--image-pull-policy",
        choices=get_args(PullPolicy),
        default="IfNotPresent",
        help="of the components' images",
    )
    parser.add_argument(
        "--image-pull-secret",
        action="append",
        default=[],
        metavar="NAME",
        help="a Secret in each deployment's namespace for pulling those images; may be repeated",
    )
    parser.add_argument(
        "--health-listen", type=address, default="127.0.0.1:8080", metavar="HOST:PORT"
    )
    parser.add_argument(
        "--metrics-listen", type=address, default="127.0.0.1:9090", metavar="HOST:PORT"
    )
    _add_notifications(parser)
    parser.add_argument(
        "--kubeconfig", type=Path, metavar="FILE", help="default: the cluster of this pod"
    )


def _add_notifications(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--notify-url-file",
        type=Path,
        metavar="FILE",
        help="a file with the URL of a webhook, which gets each rollout's verdict as a CloudEvent; "
        "it is read for each",
    )


def _add_common(
    parser: argparse.ArgumentParser, *, http_port: int | None, grpc_port: int | None
) -> None:
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR")
    _add_notifications(parser)
    for flag, default, serves in (
        ("--http-port", http_port, "OpenAI-compatible HTTP"),
        ("--grpc-port", grpc_port, "the inference's gRPC"),
    ):
        parser.add_argument(
            flag,
            type=port,
            default=default,
            required=default is None,
            metavar="PORT",
            help=f"of {serves}, on loopback; 0: any free one",
        )


if __name__ == "__main__":
    sys.exit(main())
