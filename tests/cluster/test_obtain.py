"""Where a cluster's programs come from, with a stand-in for Go that records its calls."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

OBTAIN = Path(__file__).parents[2] / "tools/kubernetes/obtain.py"
NAMES = ("etcd", "kubectl")
# Creates the requested output, or fails like an interrupted build.
GO = """#!/bin/sh
case "$1" in
version) echo "go version go99.0.0 linux/amd64"; exit 0;;
list) echo "$MODULES"; exit 0;;
install) for last; do :; done; set -- -o "$GOBIN/$(basename "${last%@*}")";;
esac
while [ "$1" != -o ]; do shift; done
echo "$(basename "$2")" >> "$NOTES"
[ "$(basename "$2")" = "$FAILS" ] && exit 1
sleep 0.3
printf '#!/bin/sh\\n' > "$2"
chmod +x "$2"
"""


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def environment(tmp_path):
    """An environment with nothing but Go and the system's tools."""
    program(tmp_path / "go" / "go", "")
    (tmp_path / "go" / "go").write_text(GO)
    kept = {key: value for key, value in os.environ.items() if key != "AURORA_K8S_BIN"}
    path = f"{tmp_path / 'go'}:/usr/bin:/bin"
    cache, notes = str(tmp_path / "cache"), str(tmp_path / "notes")
    return kept | {"PATH": path, "XDG_CACHE_HOME": cache, "NOTES": notes, "FAILS": ""}


@pytest.fixture
def begin(environment):
    def begin(*, names=NAMES, **changes):
        return subprocess.Popen(
            [sys.executable, OBTAIN, *names],
            env=environment | changes,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


@pytest.fixture
def obtain(begin):
    """Runs it; exit status, stdout and stderr."""

    def obtain(*, names=NAMES, **changes):
        with begin(names=names, **changes) as process:
            printed, stderr = process.communicate(timeout=60)
        return process.returncode, printed.strip(), stderr

    return obtain


@pytest.fixture
def built(tmp_path):
    """The programs that Go built, in order."""
    notes = tmp_path / "notes"
    return lambda: notes.read_text().split() if notes.exists() else []


def test_the_next_run_finds_what_was_built(obtain, built):
    status, folder, stderr = obtain()
    assert (status, built()) == (0, list(NAMES))
    assert all(os.access(Path(folder) / name, os.X_OK) for name in NAMES)
    assert "building etcd" in stderr
    assert "(2 of 2)" in stderr

    assert obtain() == (0, folder, "")
    assert built() == list(NAMES)


def test_a_build_that_failed_leaves_what_was_built_before(obtain, built):
    status, folder, stderr = obtain(FAILS="kubectl")
    assert (status, folder) == (1, "")
    assert stderr.endswith("kubernetes: building kubectl failed; see Go's output above\n")

    status, folder, _ = obtain()
    assert status == 0
    assert built() == ["etcd", "kubectl", "kubectl"]


def test_two_runs_at_once_build_once(begin, built):
    with begin() as one, begin() as other:
        printed = {process.communicate(timeout=60)[0] for process in (one, other)}

    assert len(printed) == 1
    assert built() == list(NAMES)


def test_a_given_folder_is_used_and_must_be_complete(obtain, tmp_path, built):
    given = tmp_path / "given"
    program(given / "etcd", "")
    status, _, stderr = obtain(AURORA_K8S_BIN=str(given))
    assert status == 1
    assert stderr == f"kubernetes: AURORA_K8S_BIN is {given}, which lacks kubectl\n"

    program(given / "kubectl", "")
    assert obtain(AURORA_K8S_BIN=str(given)) == (0, str(given), "")
    assert built() == []


@pytest.mark.parametrize(("version", "is_taken"), [("99.0.0", False), ("", True)])
def test_programs_on_the_path_must_have_the_pinned_versions(
    obtain, environment, tmp_path, built, version, is_taken
):
    module = (OBTAIN.parent / "go.mod").read_text().split()
    folder = tmp_path / "path"
    for name, pinned in zip(NAMES, ("go.etcd.io/etcd/server/v3", "k8s.io/kubernetes"), strict=True):
        stderr = version or module[module.index(pinned) + 1].removeprefix("v")
        program(folder / name, f"echo {stderr}")

    status, found, _ = obtain(PATH=f"{folder}:{environment['PATH']}")

    assert status == 0
    assert (found == str(folder)) is is_taken
    assert built() == ([] if is_taken else list(NAMES))


def test_definitions_come_with_the_program_of_their_module(obtain, tmp_path, built):
    definitions = tmp_path / "module/deploy/crds"
    definitions.mkdir(parents=True)
    names = ["cert-manager"]
    modules = str(tmp_path / "module")
    status, _, stderr = obtain(names=names, MODULES=modules)
    assert status == 1
    assert stderr.endswith("cert-manager has no CRDs\n")

    (definitions / "a.yaml").write_text("kind: A")
    status, folder, _ = obtain(names=names, MODULES=modules)

    assert status == 0
    assert (Path(folder) / "cert-manager-crds/a.yaml").read_text() == "kind: A"
    assert obtain(names=names, MODULES=modules) == (0, folder, "")
    assert built() == ["cert-manager", "cert-manager"]


def test_a_program_apart_is_built_anew_without_the_others(obtain, built):
    names = ["kubectl", "promtool"]
    status, folder, _ = obtain(names=names)
    assert status == 0
    assert obtain(names=names) == (0, folder, "")

    (Path(folder) / ".promtool").write_text("of another version")

    assert obtain(names=names)[:2] == (0, folder)
    assert built() == [*names, "promtool"]


def test_a_node_needs_no_cert_manager(obtain, built):
    assert obtain(names=[])[0] == 0

    assert "kubelet" in built()
    assert "cert-manager" not in built()
