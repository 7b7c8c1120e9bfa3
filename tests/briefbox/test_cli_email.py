"""`briefbox email` and `briefbox conversation` on a database with some mail."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlmodel import select
from typer.testing import CliRunner, Result

from briefbox.cli import app, output
from briefbox.cli import conversation as conversation_cli
from briefbox.cli import email as email_cli
from briefbox.db import Database
from briefbox.errors import BriefboxError
from briefbox.schemas import EmailKind
from briefbox.settings import Settings
from briefbox.tables import AuditEntry, Conversation, Email
from tests.briefbox.mails import Receive, mail

pytestmark = pytest.mark.usefixtures("audited")

Run = Callable[..., Result]


@pytest.fixture
def hinted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids that hints were sent for."""
    sent: list[int] = []

    class Hints:
        def brief(self, email_ids: list[int]) -> bool:
            sent.extend(email_ids)
            return True

    monkeypatch.setattr(email_cli, "hints_for", lambda _settings: Hints())
    return sent


@pytest.fixture
def run(database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command against the test's database; an expected error comes back as it was raised."""
    for module in (email_cli, conversation_cli):
        monkeypatch.setattr(module, "database_for", lambda: (database, settings))
    monkeypatch.setattr(output.console, "_width", 250)

    def run(*words: str) -> Result:
        done = CliRunner().invoke(app, list(words))
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    return run


def rows(database: Database, table: Any) -> list[Any]:
    with database.read() as session:
        return list(session.exec(select(table).order_by(table.id)))


def test_mail_is_listed_with_its_kind_and_reason(run: Run, receive: Receive) -> None:
    receive(mail("a@x"), mail("b@x", kind=EmailKind.NEWSLETTER, hours=1))
    told = run("email", "list", "--mailbox", "support").stdout
    for shown in ("newsletter: a header said so", "Skipped in all: 1 newsletter", "briefbox email brief ID"):
        assert shown in told
    [skipped] = json.loads(run("email", "list", "--state", "skipped", "--json").stdout)
    assert (skipped["id"], skipped["kind"], skipped["state"]) == (2, "newsletter", "skipped")
    assert skipped["reason"] == "newsletter: a header said so"
    assert json.loads(run("email", "list", "--kind", "customer", "--json").stdout)[0]["mailbox"] == "support"


def test_skipped_mail_is_briefed_after_all_and_skipped_again(
    run: Run, database: Database, receive: Receive, hinted: list[int]
) -> None:
    receive(mail("a@x", kind=EmailKind.NEWSLETTER), mail("b@x", kind=EmailKind.LIST, hours=1))
    assert "Email 2 waits for its brief in conversation 1" in run("email", "brief", "1", "2").stdout
    assert hinted == [1, 2]
    assert [e.work_state for e in rows(database, Email)] == ["waiting", "waiting"]
    told = run("email", "skip", "2", "--reason", "nobody asked", "--kind", "list").stdout
    assert "skipped as list: By hand, by cli:" in told
    assert [e.work_state for e in rows(database, Email)] == ["waiting", "none"]
    assert {a.action for a in rows(database, AuditEntry)} >= {
        "email briefed by hand",
        "email skipped by hand",
    }


def test_one_wrong_id_of_several_briefs_none(
    run: Run, database: Database, receive: Receive, hinted: list[int]
) -> None:
    receive(mail("a@x", kind=EmailKind.NEWSLETTER))
    with pytest.raises(BriefboxError, match="no email 9"):
        run("email", "brief", "1", "9")
    assert hinted == []
    assert rows(database, Email)[0].work_state == "none"


def test_conversations_are_split_and_merged(run: Run, database: Database, receive: Receive) -> None:
    receive(mail("a@x"), mail("b@x", answers="a@x", hours=1), mail("c@x", answers="b@x", hours=2))
    assert "Conversation 2 has 2 mails" in run("conversation", "split", "2", "--with-later").stdout
    assert "Conversation 1 has 3 mails" in run("conversation", "merge", "2", "1").stdout
    assert [c.state for c in rows(database, Conversation)] == ["open", "merged"]
    with pytest.raises(BriefboxError, match="merged into 1, not into 3"):
        run("conversation", "merge", "2", "3", "--undo")
    assert "stands for itself again" in run("conversation", "merge", "2", "1", "--undo").stdout
    assert [c.num_emails for c in rows(database, Conversation)] == [1, 2]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("email", "list", "--kind", "nonsense"), "none of customer"),
        (("email", "list", "--mailbox", "nowhere"), "nowhere"),
        (("email", "skip", "1", "--reason", "x", "--kind", "nonsense"), "expected one of customer"),
        (("conversation", "split", "5"), "no email 5"),
        (("conversation", "merge", "1", "1"), "into itself"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, words: tuple[str, ...], says: str) -> None:
    with pytest.raises(BriefboxError, match=says):
        run(*words)
