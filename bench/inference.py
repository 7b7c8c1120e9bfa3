"""How many emails a second: our engine in batches, our engine one by one, and the usual way.

The usual way is one `generate` per email with the same prompt, the same model and the same limit of new
tokens, its four lines taken from free text. All three run over the same emails, in turn, in one process.

    python -m bench.inference [--emails 8] [--batch 8] [--rounds 3] [--adapter FOLDER]
"""

import argparse
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from rich.console import Console
from rich.table import Table

from briefbox.schemas import PRIORITIES, BriefRequest, Category
from briefbox.settings import load_settings
from models.prompt import allowed_labels, encode_prompt
from models.transformers_engine import TransformersEngine

DEMO = Path(__file__).parent.parent / "briefbox" / "demo" / "emails"
CATEGORIES = (
    Category(name="Billing", description="invoices, charges, refunds, payment methods"),
    Category(name="Delivery", description="shipping, tracking, late or lost parcels"),
    Category(name="Technical problem", description="errors, bugs, outages"),
    Category(name="Account", description="sign-in, password, profile, closing an account"),
    Category(name="Feedback", description="praise, complaints, suggestions"),
)
LABEL_NAMES = ("Priority", "Category")
# Used where the demo emails are not there: subject, text.
TEXTS = (
    ("Charged twice", "I was charged twice for order #48213 on 3 March (2 x 49.90 EUR). Please refund one of them before Friday."),
    ("Where is my parcel?", "Tracking number JX99812 has not moved since last Monday. I need the tent before Saturday. Can you find out where it is or send a new one by express?"),
    ("API down", "All requests return HTTP 503 since 14:05 UTC. 12,000 users are affected, checkout is impossible. Call me at once."),
    ("Cannot log in", "I reset my password three times, and every time it says 'invalid credentials'. I tried two browsers. I need my tax documents this week."),
    ("Thank you!", "Just wanted to say thank you to Paul, who helped me with the installation yesterday. Five stars!"),
    ("Feature idea", "Love the app. It would be nice if the calendar had a dark mode and an export to CSV. No rush at all."),
    ("Close my account", "Please delete my account and all personal data. My customer number is 771204. Confirm in writing within 30 days."),
    ("Invoice address", "Could you change the billing address on invoice 2024-1187 to Firm GmbH, Hauptstrasse 5, 10115 Berlin? We need it by the end of the month."),
)  # fmt: skip


def main() -> None:
    arguments = _arguments()
    settings = load_settings(batch_size=arguments.batch)
    requests = _requests(arguments.emails)
    engine = TransformersEngine(settings)
    if arguments.adapter:
        engine.load_adapter(arguments.adapter)
    valid: list[bool] = []
    ways: dict[str, Callable[[], object]] = {
        f"batches of {arguments.batch}": lambda: engine.brief(requests),
        "one by one": lambda: [engine.brief([request]) for request in requests],
        "usual way": lambda: valid.extend(_usual(engine, r) for r in requests),
    }
    # The first passes pay for caches and memory; nobody waits for those in daily work.
    engine.brief(requests[:1])
    _usual(engine, requests[0])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        names = list(ways)
        # Each round begins with another way, so that a busy minute of the machine hits none of them always.
        for name in names[number % 3 :] + names[: number % 3]:
            started, started_cpu = time.perf_counter(), time.process_time()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - started_cpu)
    _report(engine, requests, seconds, cpu, valid)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--emails", type=int, default=8, help="how many emails (repeated if there are fewer)")
    parser.add_argument("--batch", type=int, default=8, help="most emails computed at once")
    parser.add_argument("--rounds", type=int, default=3, help="how often each way is run")
    parser.add_argument("--adapter", type=Path, help="folder of an adapter; without it the bare base model")
    return parser.parse_args()


def _requests(number: int) -> list[BriefRequest]:
    found = [_from_eml(path) for path in sorted(DEMO.glob("*.eml"))]
    texts = [item for item in found if item[1].strip()] or list(TEXTS)
    return [
        BriefRequest(subject=subject, sender="customer@example.org", text=text, categories=CATEGORIES)
        for subject, text in (texts * (number // len(texts) + 1))[:number]
    ]


def _from_eml(path: Path) -> tuple[str, str]:
    message = message_from_bytes(path.read_bytes(), policy=policy.default)
    assert isinstance(message, EmailMessage)
    body = message.get_body(preferencelist=("plain",))
    return str(message["Subject"] or ""), str(body.get_content()) if body else ""


def _usual(engine: TransformersEngine, request: BriefRequest) -> bool:
    """Free text from `generate`; whether both labels in it are allowed ones."""
    settings, tokenizer = engine.settings, engine.tokenizer
    prompt = encode_prompt(tokenizer, request, settings.max_email_tokens).ids
    ids = torch.tensor([prompt], device=engine.device)
    # The same limit for headline and summary, and 16 tokens for two labels and four field names.
    limit = settings.max_headline_tokens + settings.max_summary_tokens + 16
    with torch.inference_mode():
        output = engine.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
    text = tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)
    priority, category = (re.search(rf"^{name}: *(.*?) *$", text, re.MULTILINE) for name in LABEL_NAMES)
    if priority is None or category is None:
        return False
    return priority[1] in PRIORITIES and category[1] in allowed_labels("category", request)


def _report(
    engine: TransformersEngine,
    requests: list[BriefRequest],
    seconds: dict[str, list[float]],
    cpu: dict[str, list[float]],
    valid: list[bool],
) -> None:
    # CPU time beside the clock: on a machine that others use, it is the steadier of the two.
    rates = {name: statistics.median(len(requests) / one for one in taken) for name, taken in seconds.items()}
    usual = rates["usual way"]
    table = Table(title=f"{len(requests)} emails, median of {len(next(iter(seconds.values())))} rounds")
    for column in (
        "way",
        "emails/s",
        "slowest to fastest",
        "times the usual way",
        "CPU s/email",
        "labels allowed",
    ):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, taken in seconds.items():
        spread = f"{len(requests) / max(taken):.2f}-{len(requests) / min(taken):.2f}"
        labels = f"{statistics.mean(valid):.0%}" if name == "usual way" else "100%"
        cpu_each = f"{statistics.median(cpu[name]) / len(requests):.2f}"
        table.add_row(name, f"{rates[name]:.2f}", spread, f"{rates[name] / usual:.2f}", cpu_each, labels)
    console = Console(width=max(Console().width, 100))
    console.print(table)
    made = engine.brief(requests[:1])[0].provenance
    lengths = [
        len(encode_prompt(engine.tokenizer, r, engine.settings.max_email_tokens).ids) for r in requests
    ]
    console.print(
        f"{_cpu()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, {engine.dtype} on {made.device}, "
        f"torch {torch.__version__}; {engine.base_model} {engine.adapter or '(bare)'}; "
        f"prompts of {statistics.median(lengths):.0f} tokens (median), {max(lengths)} at most; "
        f"load {os.getloadavg()[0]:.1f} at the end. Usual way: one `generate` per email, same prompt and limits.",
        soft_wrap=True,
    )


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


if __name__ == "__main__":
    main()
