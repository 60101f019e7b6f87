"""`kubectl-aurora`, which kubectl runs from the PATH as `kubectl aurora`."""

from __future__ import annotations

import sys
import warnings

from aurora_client._cli.run import run


def main() -> None:
    """Runs the command line and exits with its code."""
    from urllib3.exceptions import InsecureRequestWarning

    from aurora_client._kubectl.app import app

    # The kubeconfig asked for unverified TLS; kubectl does not warn either.
    warnings.simplefilter("ignore", InsecureRequestWarning)

    sys.exit(run(app, sys.argv[1:], name="kubectl aurora"))


if __name__ == "__main__":
    main()
