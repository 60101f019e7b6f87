"""Prepares a stock vLLM for a gateway in front of it, and on one machine runs it.

python -m aurora_inference.vllm prepare …   writes a folder with the script `start`
python -m aurora_inference.vllm run …       that, and becomes its supervisor
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from aurora_common import leash, log
from aurora_common.errors import AuroraError, InvalidInputError, NotFoundError, exit_code
from aurora_common.flag import add_version_flag, whole
from aurora_common.store.model_store import ModelStore, model_uri
from aurora_common.store.registry import model_store
from aurora_inference.settings import listening_address
from aurora_inference.vllm.start import METHODS, Vllm, write_start
from aurora_inference.vllm.supervised import supervised


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code; with `run` it is vLLM's. An error is one line on stderr."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    log.configure()
    try:
        script = write_start(_vllm(options), options.into.absolute())
    except AuroraError as error:
        sys.stderr.write(f"aurora_inference.vllm: {' '.join(str(error).split())}\n")
        return exit_code(error)
    if options.verb == "prepare":
        return 0
    log.report(f"vLLM loads {options.target}")
    leash.follow()
    return supervised(("/bin/sh", str(script)))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses a command line; on an error, prints it and exits with status 2.

    `arguments` of the result: vLLM's own, those behind `--`.
    """
    own = arguments.index("--") if "--" in arguments else len(arguments)
    options = _parser().parse_args(arguments[:own])
    options.arguments = tuple(arguments[own + 1 :])
    return options


def _vllm(options: argparse.Namespace) -> Vllm:
    store = model_store(claims=options.claims)
    if options.verb == "run" and shutil.which(options.executable) is None:
        raise NotFoundError(
            f"there is no program {options.executable}: install vLLM 0.32 or later, or name its own"
        )
    return Vllm(
        executable=options.executable,
        target=_model(store, options.target),
        draft=_model(store, options.draft),
        store=options.claims.absolute(),
        listen=options.listen,
        model_name=options.model_name,
        dtype=options.dtype,
        speculation_length=options.speculation_length,
        max_context_tokens=options.max_context_tokens,
        per_batch_size=tuple(options.speculation_per_batch_size),
        draft_kind=options.draft_kind,
        nodes=options.nodes,
        arguments=options.arguments,
    )


def _model(store: ModelStore, uri: str) -> Path:
    """The folder of a model; vLLM would take a name without one for a model of a hub."""
    folder = store.fetch(uri)
    if not (folder / "config.json").is_file():
        raise InvalidInputError(f"{uri}: no model in {folder}")
    return folder.absolute()


def _parser() -> argparse.ArgumentParser:
    summary, commands = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(
        prog="python -m aurora_inference.vllm",
        usage="%(prog)s {prepare,run} --into DIR … [-- vLLM's own flags]",
        description=summary,
        epilog=commands,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_version_flag(parser)
    add = parser.add_argument
    add("verb", choices=("prepare", "run"))
    add("--into", type=Path, required=True, metavar="DIR", help="what is written")
    add("--target", type=model_uri, required=True, metavar="URI")
    add("--draft", type=model_uri, required=True, metavar="URI", help="the draft to begin with")
    add("--claims", type=Path, required=True, metavar="DIR", help="where claims are mounted")
    add("--listen", type=listening_address, required=True, metavar="HOST:PORT", help="vLLM's")
    add("--model-name", required=True, metavar="NAME")
    add("--dtype", default="auto", metavar="DTYPE")
    add("--speculation-length", type=whole(1), default=6, metavar="TOKENS")
    add(
        "--speculation-per-batch-size",
        type=_step,
        action="append",
        default=[],
        metavar="REQUESTS:TOKENS",
        help="draft that many tokens from that many requests on; repeatable, the first from 1",
    )
    add("--draft-kind", choices=sorted(METHODS), default="standalone")
    add(
        "--nodes",
        type=whole(1),
        default=1,
        help="of one vLLM; above 1 the script reads what LeaderWorkerSet sets in each pod",
    )
    add("--max-context-tokens", type=whole(2), metavar="TOKENS")
    add("--executable", default="vllm", metavar="PATH", help="by default vllm on PATH")
    return parser


def _step(text: str) -> tuple[int, int]:
    requests, colon, tokens = text.partition(":")
    if not (colon and requests.isdecimal() and tokens.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not REQUESTS:TOKENS, such as 8:2")
    return int(requests), int(tokens)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)
