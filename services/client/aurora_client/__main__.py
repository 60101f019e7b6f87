"""The `aurora` command."""

from __future__ import annotations

import sys

_NEEDED = ("rich", "typer")


def main() -> None:
    """Runs the command line and exits with its code."""
    try:
        from aurora_client._cli.app import app
        from aurora_client._cli.run import run
    except ModuleNotFoundError as error:
        if error.name not in _NEEDED:
            raise
        sys.exit(
            f"aurora: {error.name} must be installed for this: pip install 'aurora-serving[client]'"
        )
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(app, sys.argv[1:], name="aurora"))


if __name__ == "__main__":
    main()
