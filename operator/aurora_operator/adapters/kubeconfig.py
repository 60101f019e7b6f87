"""Access to a cluster: from a kubeconfig, or of the pod that this runs in."""

from __future__ import annotations

import ssl
from pathlib import Path

from kubernetes import config
from kubernetes.client import Configuration

from aurora_common.errors import InvalidInputError
from aurora_operator.adapters.api_error import ApiBusyError


def load_configuration(kubeconfig: Path | None) -> Configuration:
    """Access to the cluster of `kubeconfig`, or to the one that this pod runs in.

    Raises InvalidInputError if there is neither.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            source = str(kubeconfig)
            config.load_kube_config(source, None, configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise InvalidInputError(f"no access to a cluster: {error}") from error
    return configuration


def bearer(configuration: Configuration) -> str | None:
    """The current value of the Authorization header; a pod's token is rotated.

    Raises ApiBusyError if no token can be had now.
    """
    try:
        value: str | None = configuration.get_api_key_with_prefix(
            "BearerToken", alias="authorization"
        )
    except Exception as error:
        # A kubeconfig may name any program as its source of tokens, and each fails in its own way.
        raise ApiBusyError(f"no token for the Kubernetes API: {error}") from error
    return value


def tls_context(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
