"""`briefbox attachment`, over a database with one stored mail."""

import os
import subprocess
import sys
from email.message import EmailMessage
from pathlib import Path

import pytest

from briefbox.db import Database, migrate
from briefbox.settings import load_settings
from briefbox.store import mailboxes
from briefbox.tables import Mailbox
from tests.conftest import arrival, commit


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A data folder with one mail that has one attachment."""
    settings = load_settings(data_dir=tmp_path / "data")
    settings.ensure_data_dir()
    database = Database(settings.database_address)
    migrate(database)
    message = EmailMessage()
    message["From"], message["Subject"] = "vera@example.org", "The bill"
    message.set_content("See the file.")
    message.add_attachment(b"%PDF of it", maintype="application", subtype="pdf", filename="bill [1].pdf")
    row = Mailbox(name="m", address="m@larkspur.example", host="localhost", port=1, username="m")
    with database.write() as session:
        commit(session, mailboxes.add(session, row, actor="test"), [arrival(1, message.as_bytes())])
    database.close()
    return tmp_path


def run(installation: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "briefbox", "attachment", *words],
        env={**os.environ, "BRIEFBOX_DATA_DIR": str(installation / "data")},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_an_attachment_is_written_and_its_size_is_told(installation: Path) -> None:
    file = installation / "bill.pdf"
    done = run(installation, "1", "bill [1].pdf", str(file))
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == b"%PDF of it"
    assert "10 bytes of 'bill [1].pdf' written to" in done.stdout


def test_what_is_not_there_is_one_sentence(installation: Path) -> None:
    done = run(installation, "9", "bill.pdf", str(installation / "file"))
    assert (done.returncode, done.stderr.strip()) == (1, "briefbox: There is no email 9.")
    done = run(installation, "1", "x", str(installation / "file"))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (installation / "file").exists()
