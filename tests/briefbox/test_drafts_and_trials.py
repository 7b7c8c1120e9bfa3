"""What is kept while an inbox is being connected: drafts and trials, encrypted, owned, and gone when they are over."""

from datetime import UTC, datetime, timedelta

import pytest

from briefbox.db import Database
from briefbox.errors import NotFoundError, SettingsError
from briefbox.schemas import Brief, BriefRequest, LabelScore, Provenance
from briefbox.settings import Settings
from briefbox.store import drafts, secrets, trials
from briefbox.store.secrets import Cipher
from briefbox.tables import MailboxDraft, Trial, User


@pytest.fixture
def cipher(settings: Settings) -> Cipher:
    return secrets.cipher(settings)


def request(text: str = "Where is it?") -> BriefRequest:
    return BriefRequest(subject="Order", sender="Bo", text=text, categories=())


def brief() -> Brief:
    label = LabelScore(label="high", confidence=0.9, scores={})
    made_by = Provenance(engine="fake", base_model="fake", prompt_version="1")
    return Brief(headline="A secret headline", summary="", priority=label, category=label, provenance=made_by)


def lapse(database: Database, table: type[MailboxDraft] | type[Trial], **values: object) -> None:
    with database.write() as session:
        row = session.get_one(table, 1)
        for name, value in (values or {"expires_at": datetime.now(UTC) - timedelta(seconds=1)}).items():
            setattr(row, name, value)
        session.add(row)


def test_a_draft_keeps_its_secret_for_itself(
    database: Database, ana: User, ben: User, cipher: Cipher
) -> None:
    with database.write() as session:
        key = drafts.create(session, ana, {"name": "a"}, {}).key
        other = drafts.create(session, ana, {"name": "b"}, {}).key
    assert len(key) >= 32
    with database.write() as session:
        drafts.keep_secret(session, drafts.locked(session, key, ana), cipher, {"password": "hunter2"})
        drafts.change(session, drafts.locked(session, key, ana), values={"host": "h"}, facts={"found": 1})
    with database.write() as session:
        mine, another = drafts.get(session, key, ana), drafts.locked(session, other, ana)
        assert "hunter2" not in mine.secret_encrypted
        assert drafts.secret(mine, cipher) == {"password": "hunter2"}
        assert (mine.values, mine.facts) == ({"name": "a", "host": "h"}, {"found": 1})
        assert drafts.secret(another, cipher) == {}
        another.secret_encrypted = mine.secret_encrypted
        with pytest.raises(SettingsError):
            drafts.secret(another, cipher)
        with pytest.raises(NotFoundError, match="Begin again"):
            drafts.get(session, key, ben)
        drafts.end(session, mine)
    with database.read() as session, pytest.raises(NotFoundError):
        drafts.get(session, key, ana)


def test_a_draft_lapses(database: Database, ana: User) -> None:
    with database.write() as session:
        key = drafts.create(session, ana, {}, {}).key
        drafts.create(session, ana, {}, {})
        assert not drafts.any_lapsed(session)
    lapse(database, MailboxDraft)
    with database.write() as session:
        with pytest.raises(NotFoundError):
            drafts.get(session, key, ana)
        assert drafts.any_lapsed(session)
        assert drafts.end_lapsed(session) == 1


def test_a_trial_from_waiting_to_taken(database: Database, cipher: Cipher) -> None:
    with database.write() as session:
        assert trials.claim(session, cipher, seconds=60) is None
        key = trials.create(session, cipher, [request()])
        assert "Where is it" not in session.get_one(Trial, 1).requests_encrypted
        assert trials.any_waiting(session)
        assert trials.take(session, cipher, key).state == "waiting"
    with database.write() as session:
        claimed = trials.claim(session, cipher, seconds=60)
        assert claimed is not None
        assert claimed.requests == (request(),)
    with database.write() as session:
        assert trials.claim(session, cipher, seconds=60) is None, "it is taken once"
        assert trials.take(session, cipher, key).state == "running"
        assert trials.finish(session, cipher, claimed, [brief()])
    with database.write() as session:
        row = session.get_one(Trial, 1)
        assert row.requests_encrypted == ""
        assert "secret headline" not in row.briefs_encrypted
        assert trials.take(session, cipher, key).briefs == (brief(),)
    with database.write() as session:
        assert trials.take(session, cipher, key).state == "gone"
        assert not trials.finish(session, cipher, claimed, [brief()]), "nobody waits any more"


def test_a_trial_that_fails_or_is_put_back(database: Database, cipher: Cipher) -> None:
    with database.write() as session:
        key = trials.create(session, cipher, [request()])
        claimed = trials.claim(session, cipher, seconds=60)
        assert claimed is not None
        assert trials.put_back(session, claimed)
        assert not trials.fail(session, claimed, "too late"), "it is another's now"
        claimed = trials.claim(session, cipher, seconds=60)
        assert claimed is not None
        assert trials.fail(session, claimed, "no memory")
        found = trials.take(session, cipher, key)
    assert (found.state, found.error) == ("failed", "no memory")


def test_a_worker_that_died_of_it_is_not_followed_by_another(database: Database, cipher: Cipher) -> None:
    with database.write() as session:
        key = trials.create(session, cipher, [request()])
        assert trials.claim(session, cipher, seconds=60) is not None
    lapse(database, Trial, lease_until=datetime.now(UTC) - timedelta(seconds=1))
    with database.write() as session:
        assert trials.claim(session, cipher, seconds=60) is None
        assert trials.take(session, cipher, key).error == trials.WORKER_GONE


def test_a_trial_lapses(database: Database, cipher: Cipher) -> None:
    with database.write() as session:
        key = trials.create(session, cipher, [request()])
    lapse(database, Trial)
    with database.write() as session:
        assert trials.claim(session, cipher, seconds=60) is None
        assert trials.take(session, cipher, key).state == "gone"
        assert trials.any_lapsed(session)
        assert trials.end_lapsed(session) == 1


def test_another_key_is_said_and_holds_up_nothing(database: Database, cipher: Cipher) -> None:
    from cryptography.fernet import Fernet

    with database.write() as session:
        key = trials.create(session, Cipher(Fernet.generate_key().decode()), [request()])
    with database.write() as session:
        assert trials.claim(session, cipher, seconds=60) is None
    with database.write() as session:
        assert "another BRIEFBOX_SECRET_KEY" in trials.take(session, cipher, key).error
