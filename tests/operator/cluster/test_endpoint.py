from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from aurora_common.errors import InvalidInputError, UnavailableError
from aurora_operator.cluster.endpoint import Answer, Endpoint


def test_answers_its_routes_and_nothing_else():
    endpoint = Endpoint("127.0.0.1:0", {"/healthz": lambda: Answer(503, b"stuck\n")})
    try:
        with pytest.raises(HTTPError) as unhealthy:
            urlopen(f"http://127.0.0.1:{endpoint.port}/healthz?verbose", timeout=5)
        assert unhealthy.value.code == 503
        assert unhealthy.value.read() == b"stuck\n"
        unhealthy.value.close()
        with pytest.raises(HTTPError) as missing:
            urlopen(f"http://127.0.0.1:{endpoint.port}/etc/passwd", timeout=5)
        assert missing.value.code == 404
        missing.value.close()
        with pytest.raises(UnavailableError, match="cannot listen on"):
            Endpoint(f"127.0.0.1:{endpoint.port}", {})
    finally:
        endpoint.close()


@pytest.mark.parametrize("address", ["", "localhost", "127.0.0.1:http"])
def test_refuses_a_malformed_address(address):
    with pytest.raises(InvalidInputError, match="is not HOST:PORT"):
        Endpoint(address, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_every_address_is_ipv6_and_ipv4(host):
    endpoint = Endpoint("[::]:0", {"/healthz": lambda: Answer(200, b"ok\n")})
    try:
        with urlopen(f"http://{host}:{endpoint.port}/healthz", timeout=5) as answer:
            assert answer.status == 200
    finally:
        endpoint.close()
