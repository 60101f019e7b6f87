"""Which device `--device` names, and what is said if it cannot be used."""

from __future__ import annotations

import pytest
import torch

from aurora_common.errors import InvalidInputError, UnavailableError, exit_code
from aurora_model.device import OutOfMemoryError, memory_for, on_host, usable_device

NO_DRIVER = "Found no NVIDIA driver on your system. Please check\nthat you have one"
OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040). Please update"


@pytest.fixture
def gpus(monkeypatch):
    """gpus(count): a torch built for GPUs that sees so many; `problem`: why it cannot."""

    def see(count: int, *, problem: str = "", build: str | None = "13.0") -> None:
        def init() -> None:
            if problem:
                raise RuntimeError(problem)

        monkeypatch.setattr(torch.version, "cuda", build)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "init", init)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return see


def _broken(monkeypatch, problem: str) -> None:
    def ones(*args, **options):
        raise RuntimeError(problem)

    monkeypatch.setattr(torch, "ones", ones)


def test_the_cpu_is_never_asked_for_a_gpu(gpus):
    gpus(0, problem=NO_DRIVER)
    assert usable_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("problem", [NO_DRIVER, OLD_DRIVER])
def test_auto_says_why_it_takes_the_cpu(gpus, caplog, problem):
    caplog.set_level("INFO")
    gpus(0, problem=problem)
    assert usable_device("auto") == torch.device("cpu")
    assert problem.splitlines()[0] in caplog.records[-1].fields["reason"]


def test_auto_says_nothing_of_a_torch_for_cpus(gpus, caplog):
    caplog.set_level("INFO")
    gpus(0, build=None)
    assert usable_device("auto") == torch.device("cpu")
    assert not caplog.records


@pytest.mark.parametrize("problem", [NO_DRIVER, OLD_DRIVER])
def test_a_driver_that_is_missing_or_too_old_is_named(gpus, problem):
    gpus(0, problem=problem)
    with pytest.raises(UnavailableError) as caught:
        usable_device("cuda")
    assert str(caught.value) == f"--device is cuda: {problem.splitlines()[0]}"
    # It may be installed by and by.
    assert exit_code(caught.value) == 1


def test_a_torch_for_cpus_is_named(gpus):
    gpus(0, build=None)
    with pytest.raises(InvalidInputError, match=r"--device is cuda:1: torch .* is built for CPUs"):
        usable_device("cuda:1")


def test_an_index_out_of_range_is_named_with_what_is_allowed(gpus):
    gpus(2)
    with pytest.raises(InvalidInputError, match=r"cuda:2: .* sees 2 .* cuda:0 to cuda:1"):
        usable_device("cuda:2")


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        ("CUDA error: no kernel image is available for execution", InvalidInputError),
        ("CUDA error: uncorrectable ECC error encountered", UnavailableError),
    ],
)
def test_a_gpu_that_cannot_compute_is_named(gpus, monkeypatch, problem, error):
    gpus(1)
    _broken(monkeypatch, problem)
    with pytest.raises(error, match=f"cannot be used: {problem}"):
        usable_device("cuda:0")


def test_too_little_memory_is_named_with_what_it_was_for():
    with (
        pytest.raises(OutOfMemoryError, match=r"for the weights of 1\.50 GiB: tried to allocate"),
        memory_for("the weights", 3 << 29),
    ):
        raise torch.OutOfMemoryError("tried to allocate 1 GiB")


def test_a_host_copy_of_the_cpu_shares_its_memory():
    tensor = torch.arange(3)
    (copy,) = on_host((tensor,))
    copy[0] = 7
    assert tensor.tolist() == [7, 1, 2]
