"""What can be tested of the images without a builder: the Dockerfile, the wheel, the extras.

`make e2e` builds two of them and runs them.
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
COMPONENTS = ("operator", "buffer", "inference", "trainer")


def stages():
    """Each stage's instructions and base, by its name."""
    text = (ROOT / "deploy/docker/Dockerfile").read_text().replace("\\\n", " ")
    found, name = {}, ""
    for line in text.splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, [])
        elif line.strip() and not line.startswith("#") and name:
            found[name][1].append((instruction, rest))
    return found


def lineage(name):
    """The instructions of a stage and its bases, in order."""
    base, instructions = stages()[name]
    return (lineage(base) if base in stages() else []) + instructions


@pytest.mark.parametrize("component", COMPONENTS)
def test_an_image_is_only_an_environment_and_a_user(component):
    instructions = lineage(component)

    assert ("USER", "65532:65532") in instructions
    copied = [rest for instruction, rest in instructions if instruction == "COPY"]
    assert copied == [
        f"--from={source} /opt/aurora /opt/aurora"
        for source in (f"{component}-environment", "code")
    ]
    assert not [rest for instruction, rest in instructions if instruction == "RUN"]
    environment = " ".join(rest for instruction, rest in instructions if instruction == "ENV")
    assert "PYTHONSAFEPATH=1" in environment


@pytest.mark.parametrize("component", COMPONENTS)
def test_an_environment_has_the_extra_of_its_component(component):
    # A gateway stands in for the native engine.
    extras = {"trainer": ["models"], "inference": ["inference", "gateway"]}.get(
        component, [component]
    )

    command = ["python3", "install.py", *extras]
    assert ("RUN", json.dumps(command)) in lineage(f"{component}-environment")
    assert set(extras) <= _project()["optional-dependencies"].keys()


@pytest.mark.parametrize("extras", [["operator"], ["inference", "gateway"], ["models"]])
def test_what_an_environment_installs_is_what_the_extras_require(extras):
    script = runpy.run_path(str(ROOT / "deploy/docker/install.py"))
    made = script["requirements"](ROOT / "pyproject.toml", extras)

    project = _project()
    optional = project["optional-dependencies"]
    named = {*extras, *(["trainer"] if extras == ["models"] else [])}
    expected = {*project["dependencies"], *(each for extra in named for each in optional[extra])}
    assert made == sorted(each for each in expected if not each.startswith("aurora-serving"))


def test_no_step_needs_a_shell():
    for _, instructions in stages().values():
        for instruction, rest in instructions:
            if instruction in ("RUN", "CMD", "ENTRYPOINT"):
                assert isinstance(json.loads(rest), list)


def _project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_wheel_holds_every_package(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}

    there = {path.name for place in _places() for path in place.glob("aurora*") if path.is_dir()}
    assert there - held == set()
    assert {name for name in held if not name.endswith(".dist-info")} == there


def _places():
    return [
        ROOT / "operator",
        ROOT / "kernels",
        ROOT / "protos/gen",
        *(path for path in (ROOT / "services").iterdir() if path.is_dir()),
    ]


def test_the_build_context_has_everything_for_the_wheel():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}

    needed = {
        *("pyproject.toml", "README.md", "LICENSE", "constraints.txt"),
        "deploy/docker/install.py",
    }
    assert needed <= kept
    for place in _places():
        relative = place.relative_to(ROOT)
        assert any(str(part) in kept for part in (relative, *relative.parents)), relative


def requirements(extra):
    """The distributions that `aurora-serving[extra]` installs, by canonical name."""
    seen: dict[str, set[str]] = {}
    waiting = [Requirement(f"aurora-serving[{extra}]")]
    while waiting:
        wanted = waiting.pop()
        name, asked = canonicalize_name(wanted.name), wanted.extras | {""}
        if asked <= seen.get(name, set()):
            continue
        seen.setdefault(name, set()).update(asked)
        waiting += [
            inner
            for inner in _required(name)
            if inner.marker is None or any(inner.marker.evaluate({"extra": each}) for each in asked)
        ]
    return set(seen)


def _required(name):
    if name != "aurora-serving":
        return [Requirement(text) for text in metadata.requires(name) or ()]
    # The installed version may be older.
    project = _project()
    return [Requirement(text) for text in project["dependencies"]] + [
        Requirement(f"{text}; extra == '{extra}'")
        for extra, texts in project["optional-dependencies"].items()
        for text in texts
    ]


@pytest.mark.parametrize("extra", ["operator", "buffer", "client"])
def test_without_torch(extra):
    assert requirements(extra).isdisjoint({"torch", "transformers", "numpy"})


# Runs a module with imports limited to what its extra installs.
_ALONE = """
import runpy, sys

hidden, module, *arguments = sys.argv[1:]
hidden = set(hidden.split(","))

class Visible:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in hidden:
            return self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Visible(finder) for finder in sys.meta_path]
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("operator", "aurora_operator cluster --help"),
        ("operator", "aurora_operator.cluster.process"),
        ("buffer", "aurora_buffer serve --help"),
        ("buffer", "aurora_buffer redis --help"),
        ("inference", "aurora_inference --help"),
        ("trainer", "aurora_trainer --help"),
        ("models", "aurora_demo.quickstart --help"),
        ("client", "aurora_client --help"),
        ("client", "aurora_client._kubectl --help"),
    ],
)
def test_a_component_runs_with_its_extra_alone(extra, command):
    installed = requirements(extra)
    hidden = [
        package
        for package, owners in metadata.packages_distributions().items()
        if not package.startswith("aurora")
        and installed.isdisjoint(canonicalize_name(owner) for owner in owners)
    ]

    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ALONE, ",".join(hidden), *command.split()],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr


@pytest.fixture
def call(tmp_path):
    """Runs tools/images.sh where only these programs are found; each says how it is called."""
    for name in ("bash", "dirname", "sed"):
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True)
        (tmp_path / name).symlink_to(found.stdout.strip())

    def call(*arguments, programs=(), **environment):
        for name in programs:
            (tmp_path / name).write_text('#!/bin/bash\necho "called: ${0##*/} $*"\n')
            (tmp_path / name).chmod(0o755)
        return subprocess.run(
            [tmp_path / "bash", ROOT / "tools/images.sh", *arguments],
            env={"PATH": str(tmp_path), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_without_a_builder_it_says_what_to_install(call):
    result = call()

    assert result.returncode == 1
    assert "podman" in result.stderr
    assert "install one of them" in result.stderr


def test_an_unknown_builder_is_named(call):
    result = call(programs=["podman"], BUILDER="kaniko")

    assert result.returncode == 1
    assert "BUILDER is 'kaniko', which is none of docker, podman, buildah" in result.stderr


@pytest.mark.parametrize("builder", ["podman", "buildah"])
def test_it_builds_every_component_with_the_available_builder(call, builder):
    result = call(programs=[builder], IMAGE_PREFIX="r.example/aurora", BUILD_ARGS="--pull")

    version = _project()["version"]
    assert re.findall(r"called: (.*)", result.stdout) == [
        f"{builder} build --pull --file deploy/docker/Dockerfile --target {component} "
        f"--tag r.example/aurora-{component}:{version} ."
        for component in COMPONENTS
    ]


def test_docker_loads_what_it_builds(call):
    result = call(programs=["docker", "buildah"], COMPONENTS="buffer", TAG="2")

    assert "called: docker buildx build " in result.stdout
    assert "--tag aurora-buffer:2 --load ." in result.stdout


def test_the_builder_can_be_chosen(call):
    result = call(programs=["docker", "buildah"], BUILDER="buildah", COMPONENTS="operator buffer")

    assert re.findall(r"called: (\w+) build .*--target (\w+)", result.stdout) == [
        ("buildah", "operator"),
        ("buildah", "buffer"),
    ]


def test_a_list_of_packages_is_a_folder_for_each_component(call):
    result = call("--sbom", programs=["buildah"], COMPONENTS="operator buffer")

    assert re.findall(r"called: (.*)", result.stdout) == [
        "buildah build --file deploy/docker/Dockerfile --target sbom "
        f"--build-arg COMPONENT={component} --output type=local,dest=out/sbom/{component} ."
        for component in ("operator", "buffer")
    ]
