"""`briefbox cost` as an operator meets it: real processes on a database of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from briefbox.db import Database, migrate
from briefbox.settings import load_settings
from briefbox.store import mailboxes
from briefbox.tables import Brief, Email, Mailbox
from tests.conftest import arrival, commit, make_email

Run = Callable[..., subprocess.CompletedProcess[str]]
NOVEMBER = ("--since", "2026-11-01", "--until", "2026-11-30")
PRICES = {"PRICE_DEVICE_HOUR": "0.4", "HOSTED_MILLION_IN": "1", "HOSTED_MILLION_OUT": "4", "CURRENCY": "CHF"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("--json", CURRENCY="CHF")` runs `briefbox cost` on two briefs and a shadow brief of 23 November."""
    settings = load_settings(data_dir=tmp_path / "d", engine="fake")
    settings.ensure_data_dir()
    database = Database(settings.database_address)
    migrate(database)
    with database.write() as session:
        row = Mailbox(name="support", address="s", host="localhost", port=1, username="s", folders=["INBOX"])
        mailbox = mailboxes.add(session, row, actor="test")
        for number, (adapter, shadow) in enumerate([("", False), ("lora-1", False), ("lora-2", True)], 1):
            [email_id] = commit(session, mailbox, [arrival(number, make_email(number))])
            brief = Brief(
                email_id=email_id,
                conversation_id=session.get_one(Email, email_id).conversation_id,
                priority="low",
                category="other",
                engine="transformers",
                base_model="m",
                adapter=adapter,
                shadow=shadow,
                prompt_version="1",
                tokens_in=1500,
                tokens_cached=500,
                tokens_out=100,
                seconds=36.0,
                created_at=datetime(2026, 11, 23, tzinfo=UTC),
            )
            session.add(brief)
    database.close()

    def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        values = {"DATA_DIR": str(tmp_path / "d"), "ENGINE": "fake", **settings}
        environment = {**os.environ, "COLUMNS": "200", **{f"BRIEFBOX_{k}": v for k, v in values.items()}}
        return subprocess.run(
            [sys.executable, "-m", "briefbox", "cost", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def test_the_table_and_the_comparison(run: Run) -> None:
    done = run("--by", "adapter", *NOVEMBER, **PRICES)
    assert done.returncode == 0, done.stderr
    for said in ("none (the base model)", "lora-1", "shadow (1 brief)", "total", "CHF per 1,000 emails"):
        assert said in done.stdout
    assert "a hosted service is cheaper" in done.stdout
    assert "BRIEFBOX_DEVICE_WATTS" in done.stdout


def test_json_keeps_money_exact(run: Run) -> None:
    done = run("--json", *NOVEMBER, **PRICES)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["currency"] == "CHF"
    assert [row["name"] for row in facts["rows"]] == ["2026-11-23", "shadow"]
    total = facts["total"]
    assert (total["emails"], total["briefs"], total["tokens_in"]) == (2, 3, 4500)
    money = [Decimal(total[name]) for name in ("money", "money_per_1000_emails", "hosted")]
    assert money == [Decimal("0.012"), Decimal(6), Decimal("0.0038")]
    assert isinstance(total["money"], str)
    assert facts["break_even_emails_a_day"] == 5053


def test_without_prices_the_money_is_left_out(run: Run) -> None:
    done = run(*NOVEMBER)
    assert done.returncode == 0, done.stderr
    assert "EUR" not in done.stdout
    assert "no price is set" in done.stdout
    assert "BRIEFBOX_PRICE_DEVICE_HOUR" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--by", "week"), "expected one of day, mailbox, adapter, engine"),
        (("--since", "yesterday"), "expected YYYY-MM-DD"),
        (("--since", "2026-11-02", "--until", "2026-11-01"), "is after until"),
    ],
)
def test_odd_input_is_one_sentence(run: Run, words: tuple[str, ...], says: str) -> None:
    done = run(*words)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_days_without_briefs_say_so(run: Run) -> None:
    done = run("--since", "2020-01-01", "--until", "2020-01-02")
    assert done.returncode == 0
    assert "no brief was written in these days" in done.stdout
