"""Every kernel compiles to the machine code of a GPU, which takes none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

# In a process of its own: in this one, kernels are interpreted.
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from aurora_kernels.capture import triton as capture
from aurora_kernels.distill_loss import triton as distill_loss
from aurora_kernels.verify import triton as verify

F, I, J, N = "*fp32", "*i64", "*i32", "i32"
KERNELS = [
    (distill_loss._reduce, [F, I, F, N, N, N], {"PLACES": 64, "TILE": 256}),
    (distill_loss._differentiate, [F, I, F, F, N, N, N], {"PLACES": 64, "TILE": 256}),
    (
        verify._judge_position,
        [F, I, F, I, F, F, F, J, F, J, F, I, J, I, N, N],
        {"TILE": 256},
    ),
    (verify._next_token, [F, F, I, F, F, J, F, I, J, I, I, I, N, N], {"TILE": 256}),
    (capture._top_of_part, [F, I, F, N], {"PART": 128, "PLACES": 16}),
    (capture._join, [I, F, I, F, N, N], {"PARTS": 4, "PLACES": 16}),
]
for kernel, types, sizes in KERNELS:
    names = kernel.arg_names
    signature = dict(zip(names, types + ["constexpr"] * len(sizes), strict=True))
    constants = {(names.index(name),): value for name, value in sizes.items()}
    source = ASTSource(kernel, signature, constants)
    print(kernel.__name__, sorted(triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm))
"""


def test_every_kernel_compiles_for_a_gpu(tmp_path):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    # Other tests of this process have kernels interpreted.
    environment.pop("TRITON_INTERPRET", None)
    run = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = run.stdout.splitlines()
    assert len(found) == 6
    assert all("cubin" in line for line in found)
