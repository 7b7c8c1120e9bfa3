"""`briefbox parse`: one JSON line a file, whatever the file is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KEYS = [
    "file",
    "subject",
    "from",
    "to",
    "date",
    "message_id",
    "kind",
    "kind_reason",
    "language",
    "text",
    "reply",
    "signature",
    "quoted",
    "hidden_text",
    "attachments",
    "warnings",
]
MAIL = (
    b"From: =?utf-8?q?J=C3=B6rg?= <joerg@example.org>\nTo: support@larkspur.example, Ben <ben@example.org>\n"
    b"Date: Mon, 16 Nov 2026 17:20:00 +0200\nMessage-ID: <a@b>\nSubject: My lamp\n\n"
    b"Where is my lamp? I have been waiting for two weeks now.\n"
)


def run(*arguments: str | bytes, stdin: bytes = b"", **environment: str) -> tuple[list[Any], str]:
    """The JSON lines and standard error of the command, run as people run it; it must exit 0."""
    done = subprocess.run(
        [sys.executable, "-m", "briefbox", "parse", *arguments],
        input=stdin,
        capture_output=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = done.stdout.decode("utf-8", "strict").splitlines()
    return [json.loads(line) for line in lines], done.stderr.decode()


def test_an_email_is_one_json_line_in_exactly_this_shape(tmp_path: Path) -> None:
    path = tmp_path / "one.eml"
    path.write_bytes(MAIL)
    (value,), _ = run(str(path), "--json")
    assert list(value) == KEYS
    assert value["file"] == str(path)
    assert value["from"] == {"name": "Jörg", "address": "joerg@example.org"}
    assert value["to"] == [
        {"name": "", "address": "support@larkspur.example"},
        {"name": "Ben", "address": "ben@example.org"},
    ]
    assert value["date"] == "2026-11-16T15:20:00Z"
    assert (value["message_id"], value["kind"], value["language"]) == ("a@b", "customer", "en")
    assert value["text"] == value["reply"] == "Where is my lamp? I have been waiting for two weeks now."
    assert (value["hidden_text"], value["attachments"], value["warnings"]) == (False, [], [])


def test_attachments_have_name_type_and_size_and_a_missing_date_is_null(tmp_path: Path) -> None:
    path = tmp_path / "one.eml"
    path.write_bytes(b"From: a@b\nContent-Type: application/pdf; name=bill.pdf\n\n12345")
    (value,), _ = run(str(path), "--json")
    assert value["attachments"] == [{"name": "bill.pdf", "type": "application/pdf", "size": 5}]
    assert value["date"] is None


def test_folders_give_their_emails_sorted_and_a_dash_is_standard_input(tmp_path: Path) -> None:
    for name in ("b.eml", "a.EML", "c.txt"):
        (tmp_path / name).write_bytes(MAIL)
    empty = tmp_path / "empty"
    empty.mkdir()
    values, _ = run(str(tmp_path), "-", str(empty), "--json", stdin=MAIL)
    assert [Path(value["file"]).name for value in values] == ["a.EML", "b.eml", "standard input", "empty"]
    assert values[2]["subject"] == "My lamp"
    assert values[3]["error"] == "The folder holds no .eml file."


def test_bodies_without_headers(tmp_path: Path) -> None:
    page = tmp_path / "body.html"
    page.write_text('<p>Seen &amp; said</p><div style="display:none">SECRET</div>')
    text = tmp_path / "body.txt"
    text.write_text("Subject: is this one?\n\nNo, the body.\n")
    (seen,), _ = run(str(page), "--html", "--json")
    (said,), _ = run(str(text), "--plain", "--json")
    assert list(seen) == list(said) == KEYS
    assert (seen["text"], seen["hidden_text"], seen["subject"]) == ("Seen & said", True, "")
    assert (said["text"], said["subject"]) == ("Subject: is this one?\n\nNo, the body.", "")
    assert said["from"] == {"name": "", "address": ""}


def test_what_is_no_email_is_a_line_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "blank").write_bytes(b"\r\n\r\n")
    (tmp_path / "long-header").write_bytes(b"Subject: " + b"x" * 70_000 + b"\n\nHi")
    names = ["empty", "blank", "long-header", "missing", "no/such/folder"]
    values, errors = run(*(str(tmp_path / name) for name in names), "--json")
    assert [sorted(value) for value in values] == [["error", "file"]] * len(names)
    assert "cannot be read" in values[3]["error"]
    assert "Traceback" not in errors


def test_binary_rubbish_and_odd_bytes_are_valid_json_in_any_locale(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 1000)
    (tmp_path / "surrogates").write_bytes(
        b"From: \xed\xa0\x80\xff <a@b>\nSubject: =?utf-8?q?=ED=A0=80?=\n\n\xed\xb3\xbf\x00 x"
    )
    values, _ = run(
        str(tmp_path / "binary"), str(tmp_path / "surrogates"), "--json", LC_ALL="C", PYTHONUTF8="0"
    )
    assert all("text" in value for value in values)
    json.dumps(values, ensure_ascii=False).encode("utf-8")


def test_a_name_that_is_no_utf_8_is_read_and_shown(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.eml"
    with open(name, "wb") as file:  # noqa: PTH123
        file.write(MAIL)
    (value,), _ = run(name, "--json")
    assert value["file"].endswith("caf\ufffd.eml")
    assert value["subject"] == "My lamp"


def test_a_file_that_may_not_be_read_is_an_error_line(tmp_path: Path) -> None:
    path = tmp_path / "closed.eml"
    path.write_bytes(MAIL)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    (value,), _ = run(str(path), "--json")
    assert "Permission denied" in value["error"]


def test_a_file_of_100_mb_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.eml"
    with path.open("wb") as file:
        file.write(b"From: a@b\nContent-Type: application/zip; name=a.zip\n\n")
        file.truncate(100_000_000)
    (value,), _ = run(str(path), "--json")
    assert value["attachments"][0]["size"] > 99_000_000


def test_people_get_a_readable_form_without_escape_sequences(tmp_path: Path) -> None:
    path = tmp_path / "one.eml"
    path.write_bytes(MAIL.replace(b"My lamp", b"My \x1b[31mlamp"))
    done = subprocess.run(
        [sys.executable, "-m", "briefbox", "parse", str(path)], capture_output=True, timeout=60, check=True
    )
    shown = done.stdout.decode()
    assert "Jörg <joerg@example.org>" in shown
    assert "No header says that a machine wrote it." in shown
    assert "\x1b" not in shown


def test_no_deep_learning_library_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "one.eml"
    path.write_bytes(MAIL)
    program = (
        "import sys; from briefbox.cli import app\n"
        f"try: app(['parse', {str(path)!r}, '--json'])\n"
        "finally: sys.stderr.write(','.join(n for n in ('torch', 'transformers', 'peft') if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.stderr == b""
    assert json.loads(done.stdout)["subject"] == "My lamp"
