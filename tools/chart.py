"""Packages the chart as a release publishes it: with its images by digest, and for Artifact Hub.

    python tools/chart.py --registry ghcr.io/acme --digests digests --source https://github.com/acme/aurora

writes dist/aurora-VERSION.tgz, and dist/images.txt, the images to mirror. `digests` has a file for
each component, which contains sha256:… alone. Needs Helm.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/aurora"
COMPONENTS = ("operator", "inference", "buffer", "trainer")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REGISTRY = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
# What Artifact Hub calls the sections of Keep a Changelog.
_KINDS = ("added", "changed", "deprecated", "removed", "fixed", "security")


class ReleaseError(Exception):
    """The chart cannot be packaged; the message says what to correct."""


def digests_in(folder: Path) -> dict[str, str]:
    """Each component's digest. Raises ReleaseError."""
    found = {}
    for component in COMPONENTS:
        path = folder / component
        text = path.read_text().strip() if path.is_file() else ""
        if not _DIGEST.fullmatch(text):
            raise ReleaseError(f"{path} contains {text!r}; expected sha256:<64 hex>")
        found[component] = text
    return found


def values_with(text: str, registry: str, digests: Mapping[str, str]) -> str:
    """values.yaml, its comments included, with that registry and those digests by default."""
    text, count = re.subn(r'^  registry: ""$', f"  registry: {registry}", text, flags=re.MULTILINE)
    assert count == 1, "values.yaml has one registry"
    for component, digest in digests.items():
        block = rf'(^  {component}:\n    repository: .*\n(?:    .*\n)*?    digest: )""$'
        text, count = re.subn(block, rf'\g<1>"{digest}"', text, flags=re.MULTILINE)
        assert count == 1, f"values.yaml has one digest of {component}"
    return text


def changes(changelog: str, version: str) -> list[dict[str, str]]:
    """The entries of a version, or the unreleased ones if it has none, for Artifact Hub."""
    sections: dict[str, str] = dict(
        re.findall(r"^## (\S+).*?\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE)
    )
    section = sections.get(version, sections.get("Unreleased", ""))
    found = []
    for title, body in re.findall(
        r"^### (\w+)\n(.*?)(?=^### |\Z)", section, re.DOTALL | re.MULTILINE
    ):
        assert title.lower() in _KINDS, f"CHANGELOG.md has a section {title}"
        entries = re.findall(r"^- (.*?)(?=^- |\Z)", body, re.DOTALL | re.MULTILINE)
        found += [
            {"kind": title.lower(), "description": " ".join(each.split())} for each in entries
        ]
    return found


def chart_with(
    chart: Mapping[str, Any], images: Mapping[str, str], source: str, changelog: str
) -> dict[str, Any]:
    """Chart.yaml with where it comes from. Annotations of several values are JSON, and so YAML."""
    version = chart["version"]
    listed = [
        {"name": name, "image": image, "platforms": ["linux/amd64", "linux/arm64"]}
        for name, image in images.items()
    ]
    links = [
        {"name": name, "url": f"{source}/blob/v{version}/{path}"}
        for name, path in (
            ("Documentation", "docs/operator.md"),
            ("Reference", "docs/reference.md"),
            ("Security", "docs/security.md"),
        )
    ]
    annotations = {
        "artifacthub.io/changes": changes(changelog, version),
        "artifacthub.io/images": listed,
        "artifacthub.io/links": links,
    }
    return {
        **chart,
        "home": source,
        "sources": [source],
        "icon": f"{source}/raw/v{version}/docs/icon.svg",
        "maintainers": [{**each, "url": source} for each in chart["maintainers"]],
        "annotations": {
            **chart["annotations"],
            **{name: json.dumps(value, indent=1) for name, value in annotations.items()},
        },
    }


def package(helm: str, registry: str, digests: Mapping[str, str], source: str, out: Path) -> Path:
    """Writes the package and the list of images into a folder; returns the former."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    images = {
        name: f"{registry}/aurora-{name}:{chart['appVersion']}@{digest}"
        for name, digest in digests.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / CHART.name
        shutil.copytree(CHART, copy)
        shutil.copy(ROOT / "LICENSE", copy)
        described = chart_with(chart, images, source, (ROOT / "CHANGELOG.md").read_text())
        (copy / "Chart.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
        readme = copy / "README.md"
        readme.write_text(readme.read_text().replace("oci://REGISTRY/", f"oci://{registry}/"))
        values = copy / "values.yaml"
        values.write_text(values_with(values.read_text(), registry, digests))
        result = subprocess.run(
            [helm, "package", str(copy), "--destination", str(out)],
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        raise ReleaseError(f"helm package: {result.stderr.strip()}")
    (out / "images.txt").write_text("".join(f"{image}\n" for image in images.values()))
    return out / f"{chart['name']}-{chart['version']}.tgz"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--registry", required=True, help="where the images are: ghcr.io/acme")
    parser.add_argument("--digests", required=True, type=Path, help="folder of their digests")
    parser.add_argument("--source", required=True, help="the project's page: https://…")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--helm", default="helm", help="the program")
    given = parser.parse_args(arguments)
    if not _REGISTRY.fullmatch(given.registry):
        parser.error(
            f"--registry is {given.registry!r}; expected host[:port][/path], in lower case"
        )
    if not re.fullmatch(r"https://[^\s/]+/\S*[^\s/]", given.source):
        parser.error(f"--source is {given.source!r}; expected https://host/path")
    try:
        print(
            package(given.helm, given.registry, digests_in(given.digests), given.source, given.out)
        )
    except ReleaseError as error:
        sys.exit(f"chart: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
