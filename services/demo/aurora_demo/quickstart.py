"""`python -m aurora_demo.quickstart FOLDER`: trains FOLDER/target and FOLDER/draft to start with.

They are the demo's models: a target of 25 M parameters that knows Python, logs and SQL, and a draft
that knows only Python, trained in a few minutes on two cores. Existing models are kept.
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
    """Trains the models; on an error exits with code 1 and one line."""
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
    """Links `target` and `draft` in `folder` to the models deeper in it."""
    return _link(folder / "target", models.target), _link(folder / "draft", models.draft)


def _link(link: Path, made: Path) -> Path:
    beside = link.with_name(f".{link.name}")
    beside.unlink(missing_ok=True)
    # Relative: another pod may mount the folder elsewhere.
    beside.symlink_to(made.relative_to(link.parent))
    return beside.replace(link)


if __name__ == "__main__":
    main()
