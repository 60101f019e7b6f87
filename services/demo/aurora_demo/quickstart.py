"""`python -m aurora_demo.quickstart FOLDER`: FOLDER/target and FOLDER/draft, models to begin with.

They are the demo's: a target of 25 M parameters that knows Python, logs and SQL, and a draft that
knows Python alone, trained in a few minutes on two cores. What is there already is kept.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
from pathlib import Path

from rich.console import Console

from aurora_common.errors import AuroraError
from aurora_demo.models import DemoModels, prepared_models, training_documents
from aurora_demo.progress import TrainingProgress
from aurora_demo.recipe import RECIPE


def main() -> None:
    """Trains them; ends with exit code 1 and one line where it cannot."""
    parser = argparse.ArgumentParser(prog="aurora_demo.quickstart", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder: Path = parser.parse_args().folder
    console = Console(highlight=False)
    try:
        documents = training_documents(RECIPE, Path(sysconfig.get_path("stdlib")))
        models = prepared_models(RECIPE, documents, folder, TrainingProgress(console))
        for link in linked(models, folder):
            console.print(f"{link} is ready")
    except (AuroraError, OSError) as error:
        sys.exit(f"aurora_demo.quickstart: {error}")


def linked(models: DemoModels, folder: Path) -> tuple[Path, Path]:
    """Makes `target` and `draft` in `folder` links to models that lie further below in it."""
    return _link(folder / "target", models.target), _link(folder / "draft", models.draft)


def _link(link: Path, made: Path) -> Path:
    beside = link.with_name(f".{link.name}")
    beside.unlink(missing_ok=True)
    # Relative: another pod may see the folder at another place.
    beside.symlink_to(made.relative_to(link.parent))
    return beside.replace(link)


if __name__ == "__main__":
    main()
