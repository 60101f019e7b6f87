"""Failures before the request, and answers of an API server that is too busy or fails."""

import pytest
from aiohttp import web
from kubernetes.client import Configuration

from aurora_common.port import free_port
from aurora_operator.adapters.api_error import ApiBusyError
from aurora_operator.adapters.kubernetes import Kind, KubernetesApi


async def test_a_program_that_fails_to_give_a_token_fails_its_call_alone():
    def ended(configuration):
        raise RuntimeError("exec: process returned 1")

    configuration = Configuration()
    configuration.refresh_api_key_hook = ended
    api = KubernetesApi(configuration, connections=1)
    with pytest.raises(ApiBusyError, match=r"no token for the Kubernetes API: exec: process"):
        await api.served("v1")
    await api.close()


@pytest.fixture
async def busy():
    """An API server that refuses so many requests first; how many it got, and a client of it."""
    runners, apis = [], []

    async def start(refused, *, headers=None, status=429, timeout_seconds=15.0):
        asked = []

        async def answer(request):
            asked.append(request.path)
            if len(asked) <= refused:
                return web.json_response({"message": "later"}, status=status, headers=headers)
            return web.json_response({"resources": [{"name": "pods"}]})

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer)
        runners.append(web.AppRunner(application))
        await runners[-1].setup()
        port = free_port()
        await web.TCPSite(runners[-1], "127.0.0.1", port).start()
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{port}"
        apis.append(KubernetesApi(configuration, connections=1, timeout_seconds=timeout_seconds))
        return asked, apis[-1]

    yield start
    for api in apis:
        await api.close()
    for runner in runners:
        await runner.cleanup()


async def test_too_many_requests_are_sent_again_when_the_server_says(busy):
    asked, api = await busy(2, headers={"Retry-After": "0"})

    assert await api.served("v1") == {"pods"}
    assert len(asked) == 3


async def test_a_server_that_does_not_say_when_is_left_to_the_caller(busy):
    asked, api = await busy(1, headers={})

    with pytest.raises(ApiBusyError, match="later"):
        await api.served("v1")
    assert len(asked) == 1


async def test_nobody_waits_beyond_the_deadline_of_a_call(busy):
    asked, api = await busy(1000, headers={"Retry-After": "0"}, timeout_seconds=0.5)

    with pytest.raises(ApiBusyError) as refused:
        await api.served("v1")
    assert refused.value.retry_after_seconds == 0
    assert 2 < len(asked) < 7


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_what_a_server_fails_to_answer_is_sent_again(busy, status):
    asked, api = await busy(2, status=status)

    assert await api.served("v1") == {"pods"}
    assert len(asked) == 3


async def test_a_failure_that_lasts_is_left_to_the_caller(busy):
    asked, api = await busy(1000, status=500)

    with pytest.raises(ApiBusyError, match="later"):
        await api.served("v1")
    assert len(asked) == 3


async def test_a_creation_that_fails_is_not_repeated(busy):
    asked, api = await busy(1000, status=500)

    with pytest.raises(ApiBusyError, match="later"):
        await api.create(
            Kind("v1", "Event", "events"), {"metadata": {"namespace": "default", "name": "once"}}
        )
    assert len(asked) == 1
