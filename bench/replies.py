"""The new part of a reply: how often it is found, and how often words are lost, on the labelled replies.

    python -m bench.replies [--peer PYTHON] [--rounds R] [--wrong]

The replies are those of tests/ingest/replies: eleven languages, a third of them held out; and those of its folder
by_another_hand, whose writers knew nothing of the rules. `--peer` is a Python that
has email-reply-parser, mail-parser-reply, quotequail, unquotemail and talon, or some of them: they read the same mails
(HTML where they take it, else the text that we make of it). White space aside, a reply is right or it is not; a mail
loses words when a line of the label is in no place of the reply. `--wrong` names the mails that we get wrong.
"""

import argparse
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.common import print_table
from ingest.html import visible_text
from ingest.reply import split_reply
from tests.ingest.reply_cases import BY_ANOTHER_HAND, FOLDER, Case, read_cases


def main() -> None:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--peer", help="a Python that has the other libraries")
    arguments.add_argument(
        "--rounds", type=int, default=5, help="how often ours reads all; the best time counts"
    )
    arguments.add_argument("--wrong", action="store_true")
    options = arguments.parse_args()
    for name, folder in (("labelled replies", FOLDER), ("replies by another hand", BY_ANOTHER_HAND)):
        measure(name, read_cases(folder), options.peer, options.rounds, wrong=options.wrong)


def measure(title: str, cases: Sequence[Case], peer: str | None, rounds: int, *, wrong: bool) -> None:
    """Two tables: readers, and readers by language."""
    texts = [visible_text(case.body).text if case.html else case.body for case in cases]
    found = {"nothing cut": (texts, 0.0), "briefbox": ours(cases, rounds)}
    if peer:
        found |= peers(peer, cases, texts)
    columns = ["right", "right %", "fitted %", "held out %", "plain %", "HTML %", "lose words", "seconds"]
    print_table(
        f"{len(cases)} {title}",
        ["reader", *columns],
        [row(name, cases, *result) for name, result in found.items()],
    )
    languages = sorted({case.language for case in cases})
    print_table(
        "Right by language, in %",
        ["reader", *languages],
        [
            (
                name,
                *(
                    share(cases, replies, [case.language == language for case in cases])
                    for language in languages
                ),
            )
            for name, (replies, _) in found.items()
        ],
    )
    if wrong:
        for case, reply in zip(cases, found["briefbox"][0], strict=True):
            if not case.is_met(reply):
                print(f"{case.id}: {'loses words' if case.lost(reply) else 'keeps too much'}")


def ours(cases: Sequence[Case], rounds: int) -> tuple[list[str], float]:
    """Our replies, HTML to text included, and the processor seconds of the fastest round."""
    best = float("inf")
    replies: list[str] = []
    for _ in range(rounds):
        started = time.process_time()
        replies = [
            split_reply(
                visible_text(case.body).text if case.html else case.body, forwarded=case.forward
            ).reply
            for case in cases
        ]
        best = min(best, time.process_time() - started)
    return replies, best


def peers(python: str, cases: Sequence[Case], texts: Sequence[str]) -> dict[str, tuple[list[str], float]]:
    """What the other libraries make of the same mails."""
    mails = [
        {"text": text, "html": case.body if case.html else ""}
        for case, text in zip(cases, texts, strict=True)
    ]
    script = Path(__file__).with_name("replies_peer.py")
    done = subprocess.run(
        [python, str(script)], input=json.dumps(mails), stdout=subprocess.PIPE, text=True, check=True
    )
    return {
        name: (result["replies"], float(result["seconds"]))
        for name, result in json.loads(done.stdout).items()
    }


def row(name: str, cases: Sequence[Case], replies: Sequence[str], seconds: float) -> tuple[object, ...]:
    """A reader's line in the table."""
    everything = [True] * len(cases)
    return (
        name,
        sum(case.is_met(reply) for case, reply in zip(cases, replies, strict=True)),
        share(cases, replies, everything),
        share(cases, replies, [not case.held_out for case in cases]),
        share(cases, replies, [case.held_out for case in cases]),
        share(cases, replies, [not case.html for case in cases]),
        share(cases, replies, [case.html for case in cases]),
        sum(case.lost(reply) for case, reply in zip(cases, replies, strict=True)),
        f"{seconds:.3f}" if seconds else "",
    )


def share(cases: Sequence[Case], replies: Sequence[str], chosen: Sequence[bool]) -> str:
    """How many of the chosen replies are right, in percent."""
    met = [case.is_met(reply) for case, reply, wanted in zip(cases, replies, chosen, strict=True) if wanted]
    return f"{100 * sum(met) / len(met):.1f}"


if __name__ == "__main__":
    main()
