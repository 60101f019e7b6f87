"""What drafting by n-grams gives where a text repeats, and costs where it does not.

The demo's target is made to say given texts, so that what it says is real text while its steps cost
what they cost: `prose` is this project's documentation; `quotes` alternates between it and
sentences of the prompt; `code` is the prompt's source code with a name changed. Both engines decode
them greedily, taking turns, round after round; each ratio is taken within its round.

    python -m benchmarks.ngram [--quick] [--rounds N] [--texts N] [--max-tokens N]
"""

from __future__ import annotations

import os

# Before torch: its threads must not spin while the others work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import re
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from benchmarks.option import Count, parse
from benchmarks.report import Figure, median_figure, write_report
from benchmarks.workload import workload
from torch import Tensor

from aurora_demo.corpus import TRAFFIC_MODULES, read_modules
from aurora_demo.vocabulary import load_vocabulary
from aurora_inference.contract import Request, Sampling
from aurora_inference.native.engine import Engine, EngineSettings
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.target import Output, Target
from aurora_inference.native.runner.torch_runner import TorchRunner
from aurora_inference.native.sequence import Sequence as InFlight
from aurora_model.folder import read_folder

BATCHES = (1, 8)
MAX_CONTEXT_TOKENS = 1024
_PROMPT_TOKENS = 320
# Above any logit.
_CERTAIN = 1e4
_DOCS = Path(__file__).parents[1] / "docs"
_LINES_OF_CODE = 40


class Text(NamedTuple):
    """A prompt and what the target says to it."""

    prompt: tuple[int, ...]
    output: tuple[int, ...]


class Dictation(TorchRunner):
    """A runner whose target says `texts`, by request; it computes its own logits all the same."""

    def __init__(self, target: Target, *, rows: int, capacity: int) -> None:
        super().__init__(target, rows=rows, capacity=capacity)
        self.texts: dict[str, Sequence[int]] = {}

    def _first_token(self, sequence: InFlight, logits: Tensor) -> int:
        super()._first_token(sequence, logits)
        return self.texts[sequence.request.id][0]

    def _read(
        self, sequences: Sequence[InFlight], drafted: Tensor, *, batch_invariant: bool
    ) -> Output:
        output = super()._read(sequences, drafted, batch_invariant=batch_invariant)
        logits = output.logits
        rows: list[int] = []
        places: list[int] = []
        tokens: list[int] = []
        for row, sequence in enumerate(sequences):
            start = sequence.output_count
            wanted = self.texts[sequence.request.id][start : start + logits.shape[1]]
            rows += [row] * len(wanted)
            places += range(len(wanted))
            tokens += wanted
        logits[rows, places, tokens] = _CERTAIN
        return output


class Contestant:
    """An engine that drafts by n-grams, or not at all."""

    def __init__(self, target: Target, *, ngram: bool) -> None:
        settings = EngineSettings(
            max_batch=max(BATCHES),
            max_context_tokens=MAX_CONTEXT_TOKENS,
            max_speculation_length=6 if ngram else 0,
        )
        self.runner = Dictation(target, rows=settings.max_batch, capacity=settings.row_tokens)
        self.engine = Engine(self.runner, settings, on_completion=lambda completion: None)

    def tokens_per_second(self, texts: Sequence[Text], batch: int) -> tuple[float, float]:
        """Decodes all texts, so many at a time; also the mean tokens of a step."""
        engine, steps = self.engine, 0
        self.runner.texts = {str(number): text.output for number, text in enumerate(texts)}
        waiting = [
            Request(str(number), text.prompt, len(text.output), Sampling(0.0), ignore_eos=True)
            for number, text in enumerate(texts)
        ]
        started = time.perf_counter()
        while waiting or not engine.idle:
            while waiting and (found := engine.counters()).running + found.waiting < batch:
                engine.submit(waiting.pop())
            for progress in engine.step():
                steps += progress.report.steps if progress.report else 0
        seconds = time.perf_counter() - started
        tokens = sum(len(text.output) for text in texts)
        # The first token of each comes from its prompt.
        return tokens / seconds, (tokens - len(texts)) / steps


Encode = Callable[[str], Sequence[int]]


def all_texts(encode: Encode, count: int, max_tokens: int) -> dict[str, list[Text]]:
    """`count` texts of each kind."""
    paragraphs = _paragraphs()
    source = list(chain.from_iterable(map(_pieces, _modules())))
    made = {
        "prose": [_prose(paragraphs, number) for number in range(count)],
        "quotes": [_quotes(paragraphs, number) for number in range(count)],
        "code": [(piece, _renamed(piece)) for piece in source[:: len(source) // count][:count]],
    }
    return {
        kind: [
            Text(tuple(encode(prompt)[-_PROMPT_TOKENS:]), tuple(encode(output)[:max_tokens]))
            for prompt, output in texts
        ]
        for kind, texts in made.items()
    }


def _modules() -> list[str]:
    return read_modules(Path(sysconfig.get_path("stdlib")), TRAFFIC_MODULES)


def _paragraphs() -> list[str]:
    """Of the documentation, without tables, lists and code."""
    text = "\n\n".join(path.read_text() for path in sorted(_DOCS.glob("*.md")))
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = [part.replace("\n", " ").strip() for part in text.split("\n\n")]
    return [part for part in found if len(part) > 200 and part[0].isalpha() and "|" not in part]


def _prose(paragraphs: Sequence[str], number: int) -> tuple[str, str]:
    """Goes on with other paragraphs than its prompt's."""
    at = 6 * number
    parts = [paragraphs[place % len(paragraphs)] for place in range(at, at + 6)]
    return "\n".join(parts[:2]), "\n".join(parts[2:])


def _quotes(paragraphs: Sequence[str], number: int) -> tuple[str, str]:
    """A sentence of its own, then one of the prompt, in turns."""
    prompt, prose = _prose(paragraphs, number)
    quoted, own = re.split(r"(?<=\.) ", prompt), re.split(r"(?<=\.) ", prose)
    pairs = zip(own, quoted * (1 + len(own) // len(quoted)), strict=False)
    return prompt, " ".join(chain.from_iterable(pairs))


def _pieces(module: str) -> list[str]:
    lines = module.splitlines()
    starts = range(0, len(lines) - _LINES_OF_CODE, _LINES_OF_CODE)
    return ["\n".join(lines[start : start + _LINES_OF_CODE]) for start in starts]


def _renamed(piece: str) -> str:
    """The source with its most frequent longer name changed."""
    names = Counter(re.findall(r"\b[a-z_]{4,}\b", piece))
    name = names.most_common(1)[0][0] if names else "self"
    return re.sub(rf"\b{name}\b", f"{name}_value", piece)


def main() -> None:
    """Measures, prints, and writes out/bench/ngram.json."""
    options = parse(
        __doc__,
        {
            "rounds": Count(5, 1),
            "texts": Count(16, 2, "of each kind in each round"),
            "max_tokens": Count(192, 24),
        },
    )
    work = workload(quick=options.quick)
    texts = all_texts(load_vocabulary(work.target).encode, options.texts, options.max_tokens)
    texts["mixed"] = list(chain.from_iterable(zip(texts["prose"], texts["code"], strict=True)))
    cpu = Cpu()
    target = Target.load(read_folder(work.target), dtype=work.dtype, device=cpu)
    plain, ngram = (Contestant(target, ngram=ngram) for ngram in (False, True))
    torch.set_num_threads(cpu.decode_threads)
    ratios: dict[tuple[str, int], list[float]] = {}
    lengths: dict[tuple[str, int], list[float]] = {}
    # The first round warms everything up and is not counted.
    for number in range(options.rounds + 1):
        for kind in texts:
            for batch in BATCHES:
                rates = {}
                for one in (plain, ngram) if number % 2 else (ngram, plain):
                    rates[one] = one.tokens_per_second(texts[kind], batch)
                if number:
                    ratio = rates[ngram][0] / rates[plain][0]
                    ratios.setdefault((kind, batch), []).append(ratio)
                    lengths.setdefault((kind, batch), []).append(rates[ngram][1])
        print(f"round {number} of {options.rounds}", flush=True)
    write_report("ngram", _figures(ratios, lengths))


def _figures(
    ratios: Mapping[tuple[str, int], Sequence[float]],
    lengths: Mapping[tuple[str, int], Sequence[float]],
) -> dict[str, Figure]:
    figures = {}
    for (kind, batch), rounds in ratios.items():
        figures[f"tokens_per_second_over_plain_{kind}_b{batch}"] = median_figure(rounds, "ratio")
        figures[f"acceptance_length_{kind}_b{batch}"] = median_figure(
            lengths[kind, batch], "tokens/step"
        )
    return figures


if __name__ == "__main__":
    main()
