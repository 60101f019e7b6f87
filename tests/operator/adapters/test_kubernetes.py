"""Failures before the request are retryable errors."""

import pytest
from kubernetes.client import Configuration

from aurora_operator.adapters.api_error import ApiBusyError
from aurora_operator.adapters.kubernetes import KubernetesApi


async def test_a_program_that_fails_to_give_a_token_fails_its_call_alone():
    def ended(configuration):
        raise RuntimeError("exec: process returned 1")

    configuration = Configuration()
    configuration.refresh_api_key_hook = ended
    api = KubernetesApi(configuration, connections=1)
    with pytest.raises(ApiBusyError, match=r"no token for the Kubernetes API: exec: process"):
        await api.served("v1")
    await api.close()
