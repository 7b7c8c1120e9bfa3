"""The language of a text by its beginning first, beside its first 500 characters at once: how often right, how long.

    python -m bench.language [--joined N]

The texts are the new parts of the labelled replies, and N random joins of them for each language, since most of them are
shorter than a beginning.
"""

import argparse
import random
import time
from collections.abc import Callable

from bench.common import print_table
from briefbox import language
from tests.ingest.reply_cases import BY_ANOTHER_HAND, read_cases

CODES = {
    "chinese": "zh", "dutch": "nl", "english": "en", "french": "fr", "german": "de", "italian": "it", "japanese": "ja",
    "polish": "pl", "portuguese": "pt", "spanish": "es", "swedish": "sv",
}  # fmt: skip


def main() -> None:
    """Print a row for each way and kind of text."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--joined", type=int, default=150)
    options = arguments.parse_args()
    replies = [
        (CODES[case.language], "\n".join(case.needed))
        for case in (*read_cases(), *read_cases(BY_ANOTHER_HAND))
    ]
    chance = random.Random(1)
    joined = []
    for code in CODES.values():
        texts = [text for one, text in replies if one == code]
        joined += [
            (code, " ".join(chance.sample(texts, chance.randint(3, 10)))) for _ in range(options.joined)
        ]
    rows = []
    for kind, texts in (("replies", replies), ("joined", joined)):
        for way, detect in (
            (f"{language.FIRST_CHARS} first", language.detect),
            (f"{language.MAX_CHARS} at once", at_once),
        ):
            rows.append((f"{len(texts)} {kind}", way, *measure(detect, texts)))
    print_table("Language of a text", ["texts", "characters", "right", "ms a text (best of 5)"], rows)


def at_once(text: str) -> str:
    """language.detect without its first look at the beginning."""
    first, language.FIRST_CHARS = language.FIRST_CHARS, language.MAX_CHARS
    try:
        return language.detect(text)
    finally:
        language.FIRST_CHARS = first


def measure(detect: Callable[[str], str], texts: list[tuple[str, str]]) -> tuple[str, str]:
    """The share that is right, and the time of a text."""
    best = float("inf")
    right = 0
    for _ in range(5):
        started = time.process_time()
        right = sum(detect(text) == code for code, text in texts)
        best = min(best, time.process_time() - started)
    return f"{right / len(texts):.1%}", f"{best * 1000 / len(texts):.3f}"


if __name__ == "__main__":
    main()
