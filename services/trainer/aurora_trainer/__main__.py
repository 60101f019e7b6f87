"""`python -m aurora_trainer train …` and `python -m aurora_trainer rank …`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from aurora_common import leash, log
from aurora_common.errors import AuroraError
from aurora_trainer.settings import RankSettings, TrainSettings, parse_settings

# Serving comes first on a machine that both share.
_NICENESS = 10
# Idle threads of a parallel loop sleep instead of spinning on cores that serving could use. torch
# reads these when it is imported.
_QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
# torch's store warns of each wait that goes on.
_QUIET_STORE = {"TORCH_CPP_LOG_LEVEL": "ERROR"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, or computes shares of steps for a trainer, until SIGTERM or SIGINT.

    Returns the exit code; an error is one line on stderr.
    """
    try:
        settings = parse_settings(arguments)
        leash.follow()
        log.configure()
        os.nice(_NICENESS)
        for variable, value in {**_QUIET_THREADS, **_QUIET_STORE}.items():
            os.environ.setdefault(variable, value)
        return _run(settings)
    except AuroraError as error:
        sys.stderr.write(f"aurora_trainer: {' '.join(str(error).split())}\n")
        return 1


def _run(settings: TrainSettings | RankSettings) -> int:
    log.report("importing torch")
    # Only after the variables above are set.
    import torch

    from aurora_common.tls import CertificateFolder
    from aurora_trainer import process
    from aurora_trainer.ranks import process as rank_process

    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // settings.local_ranks))
    match settings:
        case TrainSettings():
            # Before any model is loaded, so that a missing file fails fast.
            certificates = None if settings.tls is None else CertificateFolder(settings.tls)
            return process.train(settings, certificates)
        case RankSettings():
            return rank_process.follow(settings)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Finalizing the interpreter and torch takes longer than an idle trainer takes to stop.
    os._exit(code)
