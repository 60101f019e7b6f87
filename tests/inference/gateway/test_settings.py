"""Command lines of a gateway."""

from __future__ import annotations

import pytest

from aurora_inference.gateway.settings import parse_settings

MINIMAL = ["--engine", "http://127.0.0.1:8000", "--http-listen", "a:1"]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--engine", "127.0.0.1:8000"], "'127.0.0.1:8000' is not http://HOST:PORT"),
        (["--engine", "http://h:8000/v1"], "without a path"),
        (["--engine", "http://user@h:8000"], "is not http://HOST:PORT"),
        (["--engine", "http://h:port"], "is not http://HOST:PORT"),
        (["--buffer", "b:1"], "--buffer without --target"),
        (["--tokens", "/t", "--pass-authorization"], "one of the two checks"),
        (["--tls", "/tls", "--admit", "operator"], "--tls without --control-listen"),
        (["--control-listen", "a:1"], "--http-listen and --control-listen are both on port 1"),
        (["--drain-listen", "0.0.0.0:9"], "--drain-listen 0.0.0.0:9: only a loopback address"),
        (["--capture-percent", "101"], "a whole number of 0 to 100"),
        (["--max-body-mib", "0"], "a whole number of 1 to 512"),
    ],
)
def test_what_does_not_go_together_is_named(flags, problem, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_settings([*MINIMAL, *flags])
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("url", ["http://h:8000/", "https://h", "http://[::1]:8000"])
def test_the_engine_is_a_url_without_a_path(url):
    assert parse_settings([*MINIMAL, "--engine", url]).engine == url.rstrip("/")
