"""The plugin as a distribution: its files and the metadata by which vLLM discovers it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

from aurora_vllm import VERSION

_METADATA = f"""\
Metadata-Version: 2.1
Name: aurora-vllm
Version: {VERSION}
Summary: Switches the draft of a running vLLM between two decode steps
License: Apache-2.0
Requires-Python: >=3.10
"""
# vLLM loads an endpoint plugin only if VLLM_PLUGINS names it.
_ENTRY_POINTS = """\
[vllm.endpoint_plugins]
aurora = aurora_vllm.endpoint:AuroraEndpoint
"""
_WHEEL = """\
Wheel-Version: 1.0
Generator: aurora_vllm
Root-Is-Purelib: true
Tag: py3-none-any
"""


def distribution_files() -> dict[str, bytes]:
    """Every file of the distribution by its path; the folder that has them works as it is."""
    package = Path(__file__).parent
    information = f"aurora_vllm-{VERSION}.dist-info"
    files = {f"aurora_vllm/{path.name}": path.read_bytes() for path in package.glob("*.py")}
    files[f"{information}/METADATA"] = _METADATA.encode()
    files[f"{information}/WHEEL"] = _WHEEL.encode()
    files[f"{information}/entry_points.txt"] = _ENTRY_POINTS.encode()
    record = f"{information}/RECORD"
    lines = [f"{name},sha256={_hash(content)},{len(content)}" for name, content in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    return files


def write_folder(folder: Path) -> Path:
    """Writes the distribution into a folder for PYTHONPATH; raises OSError."""
    for name, content in distribution_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_wheel(folder: Path) -> Path:
    """Writes the wheel into a folder and returns its path; raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"aurora_vllm-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in distribution_files().items():
            # A fixed time, so that the same source gives the same wheel.
            wheel.writestr(zipfile.ZipInfo(name), content)
    return path


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
