"""Flags that every component has: what is refused, and how it is said."""

import argparse

import pytest

from aurora_common.flag import address, device, host_port, listen_clash, port, whole


@pytest.mark.parametrize(
    ("text", "found"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("a.b:65535", ("a.b", 65535))],
)
def test_an_address(text, found):
    assert host_port(text) == found
    assert address(text) == text


@pytest.mark.parametrize(
    "text", ["", ":80", "host", "host:", "host:x", "host:65536", "host:-1", "::1:80", "host:\u0661"]
)
def test_no_address(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not HOST:PORT with a port of 0 to"):
        address(text)


@pytest.mark.parametrize("text", ["", "x", "-1", "65536", "9" * 5000])
def test_no_port(text):
    with pytest.raises(argparse.ArgumentTypeError, match="allowed are 0 to 65535"):
        port(text)


@pytest.mark.parametrize("text", ["", "0", "11", "1.5", "ten"])
def test_no_whole_number_within_its_bounds(text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not allowed; .* 1 to 10"):
        whole(1, 10)(text)


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("[::]:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("127.0.0.1:80", None, False),
    ],
)
def test_two_flags_on_one_port(first, second, clash):
    problem = listen_clash({"--listen": first, "--metrics-listen": second})
    expected = "--listen and --metrics-listen are both on port 80; each needs its own"
    assert problem == (expected if clash else None)


MODULES = ("aurora_operator", "aurora_buffer", "aurora_inference", "aurora_trainer", "aurora_model")


@pytest.mark.parametrize("module", MODULES)
def test_version(module, capsys, monkeypatch):
    import importlib
    import sys

    from aurora_common.version import VERSION

    monkeypatch.setattr(sys, "argv", [module, "--version"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"{module}.__main__").main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"aurora {VERSION}\n"


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_a_device_is_taken_as_given(text):
    assert device(text) == text


@pytest.mark.parametrize("text", ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:01", "cpu:0"])
def test_what_is_no_device_is_named_with_what_is_allowed(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not auto, cpu, cuda or cuda:N"):
        device(text)
