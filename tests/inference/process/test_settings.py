"""Combinations of command-line flags."""

import pytest

from aurora_inference.settings import parse_settings

MINIMAL = ["--target", "/t", "--model-name", "m", "--http-listen", "a:1", "--grpc-listen", "a:2"]
CONTROL = ["--control-listen", "a:3"]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--tls", "/tls", "--admit", "operator"], "--tls without --control-listen"),
        ([*CONTROL, "--tls", "/tls"], "--tls without --admit"),
        ([*CONTROL, "--admit", "operator"], "--admit without --tls"),
        (["--control-listen", "a:2"], "--grpc-listen and --control-listen are both on port 2"),
        (["--control-listen", "a:99999"], "'a:99999' is not HOST:PORT with a port of 0 to 65535"),
        (["--max-batch", "many"], "'many' is not allowed; a whole number of at least 1 is"),
        (["--sample-percent", "101"], "'101' is not allowed; a whole number of 0 to 100 is"),
    ],
)
def test_an_incomplete_combination_of_flags_is_named(flags, problem, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_settings([*MINIMAL, *flags])
    assert ended.value.code == 2
    assert problem in capsys.readouterr().err


def test_the_generation_config_is_vllms_option(capsys):
    assert parse_settings(MINIMAL).generation_config == "auto"
    assert parse_settings([*MINIMAL, "--generation-config", "vllm"]).generation_config == "vllm"
    with pytest.raises(SystemExit):
        parse_settings([*MINIMAL, "--generation-config", "/a/folder"])
    assert "--generation-config: invalid choice: '/a/folder'" in capsys.readouterr().err


def test_admit_is_repeatable():
    flags = [*CONTROL, "--tls", "/tls", "--admit", "one", "--admit", "two"]
    assert parse_settings([*MINIMAL, *flags]).admit == ("one", "two")
    assert parse_settings(MINIMAL).admit == ()
