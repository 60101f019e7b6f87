"""docs/air-gap.md lists the images that chart and operator use, and no other."""

import re
from pathlib import Path

import yaml
from support.desired import ENGINES, SETTING, SPECS, deployment

from aurora_operator.domain.objects import desired_objects

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/air-gap.md").read_text()


def documented():
    table = TEXT.split("\n## What to mirror\n")[1].split("\n\n")[0]
    names = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert names[0] == "charts/aurora"
    return set(names[1:])


def images_in(value):
    """The image of every container within."""
    if isinstance(value, dict):
        own = {value["image"]} if {"name", "image"} <= value.keys() else set()
        return own | images_in(list(value.values()))
    if isinstance(value, list | tuple):
        return {image for each in value for image in images_in(each)}
    return set()


def test_the_images_of_the_chart_are_listed(objects):
    made = objects({"quickstart": {"namespace": "default"}})
    (operator,) = (each for each in made if each["kind"] == "Deployment")
    (container,) = operator["spec"]["template"]["spec"]["containers"]
    defaults = {
        argument.partition("=")[2]
        for argument in container["args"]
        if re.match(r"--\w+-image=", argument)
    }

    version = yaml.safe_load((ROOT / "deploy/helm/aurora/Chart.yaml").read_text())["appVersion"]
    used = {image.removesuffix(f":{version}") for image in images_in(made) | defaults}
    assert used == {name for name in documented() if name.startswith("aurora-")}


def test_beyond_the_charts_defaults_the_operator_uses_the_listed_one_alone():
    # The template's containers are the user's own.
    specs = [spec for name, spec in SPECS.items() if name != "template"]
    used = images_in([desired_objects(deployment(**spec), SETTING, ENGINES) for spec in specs])

    defaults = {SETTING.inference_image, SETTING.buffer_image, SETTING.trainer_image}
    assert used >= defaults
    assert used - defaults == {name for name in documented() if not name.startswith("aurora-")}


def test_its_values_are_accepted(render):
    (values,) = re.findall(r"```yaml\n# values.yaml\n(.*?)```", TEXT, re.DOTALL)

    assert "registry.example.com/team/aurora-operator:" in render(yaml.safe_load(values))
