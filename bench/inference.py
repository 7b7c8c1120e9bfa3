"""Emails per second: ours beside the usual ways, over the same emails in the same run.

    python -m bench.inference [--emails 200] [--rounds 3] [--data FILE.jsonl] [--equal 48] [--peer .venv-peer/bin/python]

ours            one pass for each batch: shared prefix, labels scored, headline and summary decoded
one by one      ours with batches of one
usual way       one `generate` for each email that asks for JSON
padded batch    `generate` over batches of 32 in the order of arrival, padded, the same four lines as ours
llama.cpp       the GGUF that the packaged model was made of: one email at a time, and several in parallel

With --equal N every way writes exactly N tokens for each email (no early end, no second try), so that the same work is compared;
without it each way ends where it ends, as in daily work. Slow ways run over a systematic sample of the emails
(sorted by length, every k-th), as large as --seconds allows by their first email.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from bench.common import console, print_table
from bench.mails import requests_from, varied_requests
from bench.shapes import limits
from briefbox.schemas import PRIORITIES, BriefRequest
from briefbox.settings import load_settings
from models import transformers_engine as engine_module
from models.grounding import Evidence
from models.packaged import _find_gguf
from models.prompt import ANSWER_ORDER, allowed_labels, encode_prefix, encode_prompt
from models.transformers_engine import TransformersEngine

JSON_FORM = '\nAnswer with JSON only: {"priority": ..., "category": ..., "headline": ..., "summary": ...}'
# What labels and field names take of an answer that is written freely.
FREE_FORM_TOKENS = 16
PADDED_ROWS = 32


@dataclass
class Way:
    """A way of briefing: `run` takes numbers of emails and returns how many tokens it wrote in how many seconds."""

    name: str
    run: Callable[[Sequence[int]], tuple[int, float]]
    numbers: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    allowed: list[bool] = field(default_factory=list)


def main() -> None:
    """See the module."""
    arguments = _arguments()
    bench = Bench(arguments)
    ways = bench.ways()
    for way in ways:
        # The first pass pays for caches and memory; nobody waits for those in daily work.
        middle = [bench.by_length[len(bench.by_length) // 2]]
        way.run(middle)
        each = way.run(middle)[1]
        count = max(2, min(len(bench.requests), int(arguments.seconds / each)))
        # Ours in batches is what is asked about: it runs over all emails.
        count = len(bench.requests) if way.name.startswith("ours, batches") else count
        way.numbers = bench.sample(count)
    for number in range(arguments.rounds):
        # Each round begins with another way, so that a busy minute of the machine hits none of them always.
        turn = number % len(ways)
        for way in ways[turn:] + ways[:turn]:
            written, seconds = way.run(way.numbers)
            way.rates.append(len(way.numbers) / seconds)
            way.tokens.append(written / len(way.numbers))
    bench.report(ways)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--emails", type=int, default=200, help="how many emails")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is run")
    parser.add_argument(
        "--seconds", type=float, default=20, help="about how long a slow way may take a round"
    )
    parser.add_argument("--data", type=Path, help="JSONL of {subject, body}; without it varied demo emails")
    parser.add_argument(
        "--equal", type=int, default=0, help="tokens that every way writes, no more and no less"
    )
    parser.add_argument("--batch", type=int, default=32, help="rows of ours")
    parser.add_argument("--peer", type=Path, default=Path(".venv-peer/bin/python"), help="its interpreter")
    parser.add_argument("--models", type=Path, help="folder of the converted model (BRIEFBOX_MODELS_DIR)")
    return parser.parse_args()


class NothingMissing(Evidence):
    """Grounding that never asks for a second try."""

    def missing(self, text: str) -> tuple[str, ...]:
        """See Evidence."""
        return ()


class Bench:
    """The engines and the emails of one run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        options: dict[str, Any] = {"models_dir": arguments.models} if arguments.models else {}
        if arguments.equal:
            headline = arguments.equal // 4
            options |= {"max_headline_tokens": headline, "max_summary_tokens": arguments.equal - headline}
        self.settings = load_settings(batch_size=arguments.batch, **options)
        self.requests = (
            requests_from(arguments.data, arguments.emails)
            if arguments.data
            else varied_requests(arguments.emails)
        )
        self.engine = TransformersEngine(self.settings)
        if arguments.equal:
            # No early end, and no second try for facts that were not found: the same work for all.
            self.engine._stop = torch.zeros_like(self.engine._stop)
            engine_module.Evidence = NothingMissing  # type: ignore[misc]
        self.tokenizer = self.engine.tokenizer
        self.plain = _plain_model(self.engine)
        self.prompts = [
            encode_prompt(self.tokenizer, r, self.settings.max_email_tokens) for r in self.requests
        ]
        self.by_length = sorted(range(len(self.prompts)), key=lambda n: len(self.prompts[n].own))
        written = self.settings.max_headline_tokens + self.settings.max_summary_tokens
        self.limit = arguments.equal or written + FREE_FORM_TOKENS
        self.accounts: list[dict[str, float]] = []

    def sample(self, count: int) -> list[int]:
        """Every k-th email by length, in the order of arrival."""
        places = torch.linspace(0, len(self.by_length) - 1, count).round().int().tolist()
        return sorted({self.by_length[place] for place in places})

    def ways(self) -> list[Way]:
        """All that can run here."""
        batched = Way(f"ours, batches of {self.arguments.batch}", _timed(self._ours))
        alone = Way("ours, one by one", _timed(lambda numbers: sum(self._ours([n]) for n in numbers)))
        usual = Way("usual way, JSON", lambda _: (0, 0.0))
        usual.run = _timed(lambda numbers: sum(self._usual(n, usual) for n in numbers))
        ways = [batched, alone, usual, Way(f"padded batch of {PADDED_ROWS}", _timed(self._padded))]
        if self.arguments.peer.is_file():
            ways.append(Way("llama.cpp, single", lambda numbers: self._llama(numbers, 1)))
            ways += [
                Way(f"llama.cpp, {rows} in parallel", lambda numbers, rows=rows: self._llama(numbers, rows))
                for rows in (4, 16, 32)
            ]
        else:
            console.print(f"llama.cpp is left out: {self.arguments.peer} is not there; `make peer` makes it.")
        return ways

    def _ours(self, numbers: Sequence[int]) -> int:
        before = dict(self.engine.clock)
        started = time.perf_counter()
        briefs = self.engine.brief([self.requests[n] for n in numbers])
        if len(numbers) == len(self.requests):
            passed = {name: after - before.get(name, 0.0) for name, after in self.engine.clock.items()}
            passed["tokenise, ground, compose"] = time.perf_counter() - started - sum(passed.values())
            self.accounts.append(passed)
        return sum(b.provenance.tokens_out for b in briefs)

    def _usual(self, number: int, way: Way) -> int:
        ids = [*self.prompts[number].ids]
        end = ids.index(self.tokenizer.eos_token_id, len(self.prompts[number].shared))
        form = self.tokenizer(JSON_FORM, add_special_tokens=False)["input_ids"]
        written = self._generate([[*ids[:end], *form, *ids[end:]]])[0]
        way.allowed.append(_has_allowed_labels(self.tokenizer.decode(written), self.requests[number]))
        return len(written)

    def _padded(self, numbers: Sequence[int]) -> int:
        prefix = encode_prefix(self.tokenizer, ANSWER_ORDER[0])
        total = 0
        for first in range(0, len(numbers), PADDED_ROWS):
            part = [[*self.prompts[n].ids, *prefix] for n in numbers[first : first + PADDED_ROWS]]
            total += sum(len(line) for line in self._generate(part))
        return total

    def _generate(self, prompts: list[list[int]]) -> list[list[int]]:
        end = self.tokenizer.eos_token_id
        width = max(len(ids) for ids in prompts)
        ids = torch.tensor([[end] * (width - len(p)) + p for p in prompts], device=self.plain.device)
        mask = torch.tensor(
            [[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self.plain.device
        )
        exact = {"min_new_tokens": self.limit} if self.arguments.equal else {}
        with torch.inference_mode():
            output = self.plain.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=self.limit,
                do_sample=False,
                pad_token_id=end,
                **exact,
            )
        lines: list[list[int]] = output[:, width:].tolist()
        return [line[: line.index(end)] if end in line else line for line in lines]

    def _llama(self, numbers: Sequence[int], parallel: int) -> tuple[int, float]:
        prefix = encode_prefix(self.tokenizer, ANSWER_ORDER[0])
        order = sorted(numbers, key=lambda n: len(self.prompts[n].own))
        job = {
            "model": str(_find_gguf()),
            "shared": self.prompts[0].shared,
            "own": [[*self.prompts[n].own, *prefix] for n in order],
            "limit": self.limit,
            "stop": [] if self.arguments.equal else [self.tokenizer.eos_token_id],
            "parallel": parallel,
            "threads": torch.get_num_threads(),
        }
        script = Path(__file__).with_name("llama.py")
        answer = subprocess.run(
            [self.arguments.peer, script],
            input=json.dumps(job) + "\n",
            capture_output=True,
            text=True,
            check=True,
        )
        result = json.loads(answer.stdout)
        # Its own clock: loading the model is not part of it.
        return int(result["tokens_out"]), float(result["seconds"])

    def report(self, ways: Sequence[Way]) -> None:
        """The table, and where the time of ours goes."""
        usual = statistics.median(next(w for w in ways if w.name.startswith("usual")).rates)
        rows = []
        for way in ways:
            rate = statistics.median(way.rates)
            allowed = (
                f"{statistics.mean(way.allowed):.0%}"
                if way.allowed
                else "100%"
                if way.name.startswith("ours")
                else ""
            )
            spread = f"{min(way.rates):.2f} to {max(way.rates):.2f}"
            written = f"{statistics.median(way.tokens):.0f}"
            rows.append(
                (way.name, len(way.numbers), f"{rate:.2f}", spread, f"{rate / usual:.1f}", written, allowed)
            )
        print_table(
            f"Inference, {len(self.requests)} emails, {self.arguments.rounds} rounds",
            ("way", "emails", "emails/s", "spread", "times usual", "tokens written", "labels allowed"),
            rows,
        )
        own = statistics.mean(len(p.own) for p in self.prompts)
        console.print(
            f"Prompts: {len(self.prompts[0].shared)} shared tokens and {own:.0f} own (median "
            f"{statistics.median(len(p.own) for p in self.prompts):.0f}); limit {self.limit} new tokens"
            f"{', exactly' if self.arguments.equal else ''}; {self.engine.dtype}, {torch.get_num_threads()} threads, torch "
            f"{torch.__version__}; load {os.getloadavg()[0]:.1f} at the end.",
            soft_wrap=True,
        )
        self._account(own, statistics.median(ways[0].tokens))

    def _account(self, own: float, written: float) -> None:
        """Where an email's time goes, and the share of the matrix product's best rate here."""
        model = self.engine.model
        head = model.get_output_embeddings().weight.numel()
        body = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
        peak = limits(self.engine.device, self.engine.dtype)[0] / 1e9
        parts = {name: statistics.median(a[name] for a in self.accounts) for name in self.accounts[0]}
        work = {"prefill": 2 * body * own, "decode": 2 * (body + head) * written}
        rows = []
        for name, seconds in parts.items():
            each = seconds / len(self.requests)
            rate = work[name] / each / 1e9 if name in work else None
            rows.append(
                (
                    name,
                    f"{each * 1e3:.1f}",
                    f"{seconds / sum(parts.values()):.0%}",
                    "" if rate is None else f"{rate:.0f}",
                    "" if rate is None else f"{rate / peak:.0%}",
                )
            )
        print_table(
            f"Where the time of an email goes (best product here: {peak:.0f} GFLOP/s)",
            ("part", "ms", "share", "GFLOP/s of the linear layers", "of the best"),
            rows,
        )


def _timed(run: Callable[[Sequence[int]], int]) -> Callable[[Sequence[int]], tuple[int, float]]:
    def timed(numbers: Sequence[int]) -> tuple[int, float]:
        started = time.perf_counter()
        written = run(numbers)
        return written, time.perf_counter() - started

    return timed


def _plain_model(engine: TransformersEngine) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        engine.base.path, dtype=engine.dtype, attn_implementation="sdpa", local_files_only=True
    )
    return model.to(engine.device).eval()


def _has_allowed_labels(text: str, request: BriefRequest) -> bool:
    found = {name: re.search(rf'"{name}" *: *"(.*?)"', text) for name in ("priority", "category")}
    priority, category = found["priority"], found["category"]
    if priority is None or category is None:
        return False
    return priority[1] in PRIORITIES and category[1] in allowed_labels("category", request)


if __name__ == "__main__":
    main()
