"""The plugin as folder and as wheel: found by vLLM, in need of nothing of Aurora's."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import aurora_vllm
from aurora_vllm.distribution import write_folder, write_wheel

ROOT = Path(__file__).parents[2]
_PROBE = """
import sys
from importlib.metadata import entry_points, version
sys.path = [entry for entry in sys.path if not entry.startswith(sys.argv[1])]
[plugin] = entry_points(group="vllm.endpoint_plugins")
endpoint = plugin.load()()
ours = sorted(name for name in sys.modules if name.split(".")[0].startswith("aurora"))
assert all(name.split(".")[0] == "aurora_vllm" for name in ours), ours
print(plugin.name, endpoint.name, version("aurora-vllm"), sys.modules["aurora_vllm"].__file__)
"""


def found(path: Path) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(path), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", _PROBE, str(ROOT / "services")]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert output.returncode == 0, output.stderr
    return output.stdout.split()


@pytest.mark.parametrize("form", ["folder", "wheel"])
def test_it_is_found_by_its_entry_point(tmp_path, form):
    path = write_folder(tmp_path) if form == "folder" else write_wheel(tmp_path)

    name, endpoint, version, file = found(path)

    assert (name, endpoint, version) == ("aurora", "aurora", aurora_vllm.VERSION)
    assert file.startswith(str(path))


def test_the_wheel_lists_its_files(tmp_path):
    with zipfile.ZipFile(write_wheel(tmp_path)) as wheel:
        [record] = [name for name in wheel.namelist() if name.endswith("/RECORD")]
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(wheel.read(record).decode()))}

        assert rows.keys() == set(wheel.namelist())
        for name in rows.keys() - {record}:
            digest = hashlib.sha256(wheel.read(name)).digest()
            expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            assert rows[name] == [f"sha256={expected}", str(len(wheel.read(name)))]


def test_its_version_is_auroras():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == aurora_vllm.VERSION


def test_the_command_writes_it(tmp_path):
    command = [sys.executable, "-m", "aurora_vllm", "folder", str(tmp_path / "plugin")]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert output == f"{tmp_path / 'plugin'}\n"
    assert (tmp_path / "plugin/aurora_vllm/worker.py").is_file()
