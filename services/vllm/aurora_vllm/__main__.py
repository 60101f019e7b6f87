"""Puts the plugin where a vLLM finds it; run by Aurora's Python, which needs no vLLM.

python -m aurora_vllm folder DIR   for PYTHONPATH: the package and its entry points
python -m aurora_vllm wheel DIR    for pip install
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from aurora_vllm.distribution import write_folder, write_wheel


def main() -> None:
    summary, commands = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(
        prog="aurora_vllm",
        description=summary,
        epilog=commands,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("form", choices=["folder", "wheel"])
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    write = write_folder if options.form == "folder" else write_wheel
    try:
        written = write(options.directory)
    except OSError as error:
        sys.exit(f"aurora_vllm: cannot write {error.filename}: {error.strerror}")
    sys.stdout.write(f"{written}\n")


if __name__ == "__main__":
    main()
