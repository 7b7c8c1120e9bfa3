"""What the starter adapter scores on the held-out starter emails, beside the bare base and simple baselines.

    python -m bench.starter FOLDER [--models FOLDER] [--without-base]

Labels: the commonest one; TF-IDF and logistic regression on the same training part. Summaries: the first sentence of
the email; the sentence most like all the others (as TextRank, Mihalcea and Tarau 2004, by shared words).
"""

import argparse
import math
from collections import Counter
from pathlib import Path
from typing import Any

from bench.common import print_table
from briefbox.schemas import Example
from briefbox.settings import load_settings
from models.engine import make_engine
from models.text import sentences
from training.evaluate import LABEL_FIELDS, Evaluation, predict, score
from training.metrics import label_scores, text_scores, words
from training.seeds import read_seeds

BATCH = 16
DAMPING = 0.85


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=Path, help="folder of converted base models")
    parser.add_argument("--without-base", action="store_true", help="leave the bare base model out")
    arguments = parser.parse_args()
    seeds = read_seeds()
    learned = [e for e in seeds if e.split != "test"]
    test = [e for e in seeds if e.split == "test"]
    engine = make_engine(load_settings(models_dir=arguments.models))
    adapter = engine.load_adapter(arguments.folder)
    rows: list[tuple[object, ...]] = []
    found = score(test, predict(engine, test, adapter, batch_size=BATCH))
    rows.append(("starter adapter", *_row(found)))
    if not arguments.without_base:
        rows.append(("bare base model", *_row(score(test, predict(engine, test, "", batch_size=BATCH)))))
    for name, guess in (("commonest label", commonest), ("TF-IDF, logistic regression", regression)):
        cells: list[str] = []
        for field in LABEL_FIELDS:
            truth = [str(getattr(e.output, field)) for e in test]
            said, sure = guess(learned, test, field)
            scores = label_scores(truth, said, sure)
            cells += [f"{scores.accuracy:.3f}", f"{scores.macro_f1:.3f}", _number(scores.ece)]
        rows.append((name, *cells, "", "", "", ""))
    for name, pick in (("first sentence", _first), ("central sentence", _central)):
        texts = text_scores([str(e.output.summary) for e in test], [pick(e.input.text) for e in test])
        cells = [f"{texts.rouge1:.3f}", f"{texts.rouge2:.3f}", f"{texts.rougeL:.3f}", ""]
        rows.append((name, *[""] * 6, *cells))
    print_table(
        f"{len(test)} held-out starter emails, {len(learned)} to learn from",
        [
            "model", "priority acc", "macro-F1", "ECE", "category acc", "macro-F1", "ECE",
            "ROUGE-1", "ROUGE-2", "ROUGE-L", "grounded",
        ],
        rows,
    )  # fmt: skip
    print_table(
        "starter adapter by label",
        ["label", "emails", "precision", "recall"],
        [
            (f"{field} {label}", c.support, f"{c.precision:.2f}", f"{c.recall:.2f}")
            for field in LABEL_FIELDS
            for label, c in found.labels[field].classes.items()
        ],
    )


def _row(found: Evaluation) -> list[str]:
    cells: list[str] = []
    for field in LABEL_FIELDS:
        scores = found.labels[field]
        cells += [f"{scores.accuracy:.3f}", f"{scores.macro_f1:.3f}", _number(scores.ece)]
    texts = found.texts["summary"]
    return [
        *cells,
        f"{texts.rouge1:.3f}",
        f"{texts.rouge2:.3f}",
        f"{texts.rougeL:.3f}",
        f"{found.grounding.rate:.1%}",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def commonest(learned: list[Example], test: list[Example], field: str) -> tuple[list[str], list[float]]:
    """For each test email the commonest label of what was learned from, and its share."""
    counts = Counter(str(getattr(e.output, field)) for e in learned)
    label, times = counts.most_common(1)[0]
    return [label] * len(test), [times / counts.total()] * len(test)


def regression(learned: list[Example], test: list[Example], field: str) -> tuple[list[str], list[float]]:
    """For each test email the label by TF-IDF and logistic regression, and its probability. Needs two labels."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    def texts(examples: list[Example]) -> list[str]:
        return [f"{e.input.subject}\n{e.input.text}" for e in examples]

    model: Any = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10, max_iter=2000, class_weight="balanced"),
    )
    model.fit(texts(learned), [str(getattr(e.output, field)) for e in learned])
    probabilities = model.predict_proba(texts(test))
    return [str(label) for label in model.predict(texts(test))], [float(max(row)) for row in probabilities]


def _first(text: str) -> str:
    return next((s for s in sentences(text) if len(s.split()) > 3), text[:200])


def _central(text: str) -> str:
    found = [s for s in sentences(text) if len(s.split()) > 3] or [text[:200]]
    sets = [set(words(s)) for s in found]
    weights = [
        [len(a & b) / (math.log(len(a) + 1) + math.log(len(b) + 1)) if a is not b else 0.0 for b in sets]
        for a in sets
    ]
    totals = [sum(row) or 1.0 for row in weights]
    rank = [1.0] * len(found)
    for _ in range(30):
        rank = [
            1 - DAMPING + DAMPING * sum(rank[j] * weights[j][i] / totals[j] for j in range(len(found)))
            for i in range(len(found))
        ]
    return found[max(range(len(found)), key=lambda n: rank[n])]


if __name__ == "__main__":
    main()
