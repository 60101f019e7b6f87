"""The chart as a release packages it: its images by digest, and what Artifact Hub shows."""

import json
import re
import subprocess
import tarfile
from xml.etree import ElementTree

import pytest
import yaml
from tools import chart as release

from aurora_operator.domain.crd import definition
from aurora_operator.domain.manifest.parser import parse_manifest

REGISTRY, SOURCE = "registry.example.com:5000/team", "https://git.example.com/team/aurora"
DIGESTS = {name: f"sha256:{number:064x}" for number, name in enumerate(release.COMPONENTS, 1)}
CHANGELOG = """\
# Changelog

## Unreleased

### Added
- Something to come.

## 1.2.3 - 2026-01-02

### Added
- A feature,
  with more lines.
- Another: with a colon.

### Fixed
- A fault.

## 1.2.2
### Removed
- Old.
"""


@pytest.fixture(scope="module")
def package(helm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    return release.package(str(helm), REGISTRY, DIGESTS, SOURCE, folder)


@pytest.fixture(scope="module")
def metadata(package):
    with tarfile.open(package) as archive:
        return yaml.safe_load(archive.extractfile("aurora/Chart.yaml"))


def test_the_package_renders_its_images_by_digest(helm, package, objects):
    command = [helm, "template", "aurora", package, "--namespace", "aurora-system"]
    rendered = subprocess.run(
        [*command, "--kube-version", "1.36.2"], capture_output=True, text=True, check=True
    )

    expected = {"registry": REGISTRY} | {name: {"digest": each} for name, each in DIGESTS.items()}
    got = [each for each in yaml.safe_load_all(rendered.stdout) if each]
    assert got == objects({"images": expected})
    for name, digest in DIGESTS.items():
        assert f"{REGISTRY}/aurora-{name}@{digest}" in rendered.stdout


def test_the_images_to_mirror_are_listed_beside_it(package):
    version = release.ROOT.joinpath("pyproject.toml").read_text().split('version = "')[1]
    tag = version.split('"')[0]

    assert (package.parent / "images.txt").read_text().splitlines() == [
        f"{REGISTRY}/aurora-{name}:{tag}@{digest}" for name, digest in DIGESTS.items()
    ]


def test_it_passes_the_strict_lint(helm, package, tmp_path):
    with tarfile.open(package) as archive:
        archive.extractall(tmp_path, filter="data")
    result = subprocess.run(
        [helm, "lint", "--strict", tmp_path / "aurora"], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout
    # Nothing that is recommended is missing either.
    assert "[INFO]" not in result.stdout


def test_it_says_where_it_comes_from(metadata, package):
    tag = f"v{metadata['version']}"

    assert metadata["home"] == SOURCE
    assert metadata["icon"] == f"{SOURCE}/raw/{tag}/docs/icon.svg"
    assert ElementTree.parse(release.ROOT / "docs/icon.svg").getroot().tag.endswith("svg")
    for link in yaml.safe_load(metadata["annotations"]["artifacthub.io/links"]):
        path = link["url"].removeprefix(f"{SOURCE}/blob/{tag}/")
        assert (release.ROOT / path).is_file()
    with tarfile.open(package) as archive:
        assert {"aurora/README.md", "aurora/LICENSE"} <= set(archive.getnames())
        readme = archive.extractfile("aurora/README.md").read().decode()
    assert f"oci://{REGISTRY}/charts/aurora" in readme


def test_artifact_hub_learns_of_images_and_changes(metadata):
    annotations = metadata["annotations"]
    images = yaml.safe_load(annotations["artifacthub.io/images"])

    assert [each["name"] for each in images] == list(DIGESTS)
    assert all(each["image"].endswith(f"@{DIGESTS[each['name']]}") for each in images)
    changes = yaml.safe_load(annotations["artifacthub.io/changes"])
    assert changes
    assert all(set(each) == {"kind", "description"} for each in changes)


def test_the_resource_on_artifact_hub_is_the_charts(metadata):
    crd = definition()
    (shown,) = yaml.safe_load(metadata["annotations"]["artifacthub.io/crds"])
    (example,) = yaml.safe_load(metadata["annotations"]["artifacthub.io/crdsExamples"])

    assert shown["kind"] == crd["spec"]["names"]["kind"]
    assert shown["name"] == crd["metadata"]["name"]
    assert [shown["version"]] == [each["name"] for each in crd["spec"]["versions"]]
    assert parse_manifest(json.dumps(example), "example").metadata.name == "chat"


def test_the_chart_has_the_projects_version(metadata):
    text = release.ROOT.joinpath("pyproject.toml").read_text()

    assert f'version = "{metadata["version"]}"' in text
    assert metadata["appVersion"] == metadata["version"]


def test_changes_are_those_of_the_version():
    assert release.changes(CHANGELOG, "1.2.3") == [
        {"kind": "added", "description": "A feature, with more lines."},
        {"kind": "added", "description": "Another: with a colon."},
        {"kind": "fixed", "description": "A fault."},
    ]


def test_changes_of_a_version_without_a_section_are_the_unreleased_ones():
    assert release.changes(CHANGELOG, "2.0.0") == [
        {"kind": "added", "description": "Something to come."}
    ]


def test_a_missing_digest_is_named(tmp_path):
    for name, digest in DIGESTS.items():
        (tmp_path / name).write_text(f"{digest}\n")
    (tmp_path / "buffer").write_text("sha256:1\n")

    with pytest.raises(release.ReleaseError, match=r"buffer contains 'sha256:1'; expected sha256:"):
        release.digests_in(tmp_path)


@pytest.mark.parametrize(
    ("option", "value"),
    [("--registry", "GHCR.io/Acme"), ("--registry", "oci://a"), ("--source", "git.example.com/a")],
)
def test_wrong_options_are_named(capsys, option, value, tmp_path):
    options = {"--registry": REGISTRY, "--source": SOURCE, "--digests": str(tmp_path)}
    arguments = [each for pair in {**options, option: value}.items() for each in pair]

    with pytest.raises(SystemExit):
        release.main(arguments)

    assert f"{option} is {value!r}" in capsys.readouterr().err


def test_the_workflow_releases_every_component():
    jobs = yaml.safe_load((release.ROOT / ".github/workflows/release.yaml").read_text())["jobs"]
    stages = re.findall(
        r"^FROM .* AS (\S+)$", (release.ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE
    )

    matrix = jobs["image"]["strategy"]["matrix"]["component"]
    assert set(matrix) == set(release.COMPONENTS) <= set(stages)
