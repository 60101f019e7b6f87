"""Runs the scripts of examples/clients, each in an environment with its own package.

python -m benchmarks.clients BASE_URL MODEL TOKENIZER_FOLDER [NAME…]
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from aurora_demo.models import cache_root

_ROOT = Path(__file__).parents[1]
SCRIPTS = _ROOT / "examples/clients"
_INSTALL_SECONDS, _RUN_SECONDS = 900, 300


@dataclass(frozen=True, slots=True)
class Client:
    """A script and the package that it needs; `heavy` takes minutes to install."""

    name: str
    package: str
    script: str
    heavy: bool = False


CLIENTS = (
    Client("openai-python", "openai", "openai_client.py"),
    Client("openai-node", "openai", "openai_client.mjs"),
    Client("litellm", "litellm", "litellm_client.py"),
    Client("langchain", "langchain-openai", "langchain_client.py"),
    Client("guidellm", "guidellm", "guidellm.sh", heavy=True),
    Client("aiperf", "aiperf", "aiperf.sh", heavy=True),
    Client("vllm-bench", "vllm", "vllm_bench.sh", heavy=True),
)


@dataclass(frozen=True, slots=True)
class Served:
    """What the scripts are told; `tokenizer` is a folder in Hugging Face layout."""

    base_url: str
    model: str
    tokenizer: Path


class NotInstalledError(Exception):
    """The client's package cannot be installed here; says why."""


def run(client: Client, served: Served) -> None:
    """Raises NotInstalledError, or CalledProcessError with what the script said."""
    folder = cache_root() / "clients" / client.name
    folder.mkdir(parents=True, exist_ok=True)
    install = _npm if client.script.endswith(".mjs") else _pip
    command, environment = install(client, folder)
    environment |= {
        "AURORA_BASE_URL": served.base_url,
        "AURORA_MODEL": served.model,
        "AURORA_TOKENIZER": str(served.tokenizer),
    }
    subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=_RUN_SECONDS,
    )


def passed(served: Served, *, names: Collection[str] = ()) -> Iterator[str]:
    """The clients whose script passed, one by one; says why others did not."""
    for client in CLIENTS:
        if names and client.name not in names:
            continue
        try:
            run(client, served)
        except NotInstalledError as error:
            print(f"{client.name}: not installed: {error}", flush=True)
        except subprocess.SubprocessError as error:
            said = getattr(error, "stderr", "") or getattr(error, "output", "") or str(error)
            print(f"{client.name}: failed: {said[-2000:]}", flush=True)
        else:
            print(f"{client.name}: passed", flush=True)
            yield client.name


def _pip(client: Client, folder: Path) -> tuple[list[str], dict[str, str]]:
    binaries = (_vllm() if client.package == "vllm" else _venv(client, folder)) / "bin"
    script = str(SCRIPTS / client.script)
    command = ["sh", script] if script.endswith(".sh") else [str(binaries / "python"), script]
    return command, {"PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": ""}


def _venv(client: Client, folder: Path) -> Path:
    if not (folder / ".installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", client.package]
        _install(pip, folder)
        (folder / ".installed").touch()
    return folder


def _vllm() -> Path:
    """The one for CPUs, which tests share: the package `vllm` brings CUDA, 9 GB."""
    return Path(_install([str(_ROOT / "tools/vllm/setup.sh")], _ROOT).strip())


def _npm(client: Client, folder: Path) -> tuple[list[str], dict[str, str]]:
    if not (folder / ".installed").exists():
        _install(["npm", "install", "--silent", client.package], folder)
        (folder / ".installed").touch()
    # Node looks for packages beside the script.
    script = folder / client.script
    script.write_bytes((SCRIPTS / client.script).read_bytes())
    return ["node", script.name], {}


def _install(command: list[str], folder: Path) -> str:
    """What the command printed."""
    try:
        return subprocess.run(
            command,
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise NotInstalledError(said.strip()[-500:]) from error


def main() -> None:
    base_url, model, tokenizer, *names = sys.argv[1:]
    done = list(passed(Served(base_url, model, Path(tokenizer)), names=names))
    print(f"{len(done)} passed")


if __name__ == "__main__":
    main()
