"""The command line as a person meets it: real processes, bad input, one sentence, exit code 1, no traceback."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from briefbox.db import Database
from briefbox.embedded.imap import EmbeddedIMAP
from briefbox.settings import load_settings
from tests.flow.conftest import PASSWORD, USER, wait_for
from tests.models.openai_server import OpenAIServer

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("audit", "--json", BASE_MODEL="/x")` runs a command in an installation of its own."""

    def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        values = {"DATA_DIR": str(tmp_path / "d"), "ENGINE": "fake", "IMAP_TIMEOUT_SECONDS": "5", **settings}
        environment = {**os.environ, "COLUMNS": "200", **{f"BRIEFBOX_{k}": v for k, v in values.items()}}
        return subprocess.run(
            [sys.executable, "-m", "briefbox", *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


@pytest.fixture
def imap() -> Iterator[EmbeddedIMAP]:
    with EmbeddedIMAP({USER: PASSWORD}) as server:
        yield server


def password_file(tmp_path: Path, password: str = PASSWORD) -> str:
    (tmp_path / "password").write_text(password + "\n")
    return str(tmp_path / "password")


def one_sentence(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for word in says:
        assert word in done.stderr + done.stdout, done.stderr + done.stdout


def add_words(
    tmp_path: Path,
    port: int,
    *more: str,
    password: str = PASSWORD,
    security: str = "none",
    host: str = "127.0.0.1",
) -> list[str]:
    file = password_file(tmp_path, password)
    return [
        "mailbox",
        "add",
        "support",
        "--host",
        host,
        "--port",
        str(port),
        "--username",
        USER,
        "--security",
        security,
        "--password-file",
        file,
        *more,
    ]


def test_a_mailbox_is_added_tested_and_listed(run: Run, tmp_path: Path, imap: EmbeddedIMAP) -> None:
    assert run("migrate").returncode == 0
    added = run(*add_words(tmp_path, imap.port))
    assert "We will not delete, move or mark anything" in added.stdout
    facts = json.loads(run("mailbox", "test", "support", "--json").stdout)
    assert facts["folders"][0]["name"] == "INBOX"
    [row] = json.loads(run("mailbox", "list", "--json").stdout)
    assert (row["name"], row["ledger"]) == ("support", 0)
    assert PASSWORD not in run("mailbox", "list", "--json").stdout
    one_sentence(run(*add_words(tmp_path, imap.port)), "exists already", "--replace")


def test_a_wrong_password_is_refused_and_nothing_is_stored(
    run: Run, tmp_path: Path, imap: EmbeddedIMAP
) -> None:
    run("migrate")
    one_sentence(run(*add_words(tmp_path, imap.port, password="wrong")), "password")
    assert json.loads(run("mailbox", "list", "--json").stdout) == []


def test_an_unreachable_host(run: Run, tmp_path: Path) -> None:
    run("migrate")
    one_sentence(run(*add_words(tmp_path, 1)), "127.0.0.1:1")


def test_a_folder_that_does_not_exist(run: Run, tmp_path: Path, imap: EmbeddedIMAP) -> None:
    run("migrate")
    one_sentence(run(*add_words(tmp_path, imap.port, "--folder", "Suport")), "Suport", "INBOX")


def test_an_unknown_mailbox_names_those_there_are(run: Run) -> None:
    run("migrate")
    one_sentence(run("mailbox", "test", "sales"), "no mailbox named sales", "briefbox mailbox add")


def test_a_database_without_tables(run: Run) -> None:
    one_sentence(run("audit"), "Run: briefbox migrate")


@pytest.mark.parametrize("words", [("audit",), ("migrate",), ("poll",), ("up",)])
def test_a_database_that_is_newer_than_the_code(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    run("migrate")
    database = Database(load_settings(data_dir=tmp_path / "d").database_address)
    with database.write() as session:
        session.connection().execute(text("UPDATE alembic_version SET version_num = 'future'"))
    database.close()
    one_sentence(run(*words), "future", "newer version")


def test_a_database_server_that_is_gone(run: Run) -> None:
    one_sentence(run("audit", DATABASE_URL="postgresql://me:hunter2@127.0.0.1:1/x"), "BRIEFBOX_DATABASE_URL")
    assert "hunter2" not in run("audit", DATABASE_URL="postgresql://me:hunter2@127.0.0.1:1/x").stderr


@pytest.mark.parametrize("words", [("worker",), ("worker", "--queue", "training"), ("beat",), ("doctor",)])
def test_a_redis_that_is_gone(run: Run, words: tuple[str, ...]) -> None:
    run("migrate")
    one_sentence(
        run(*words, REDIS_URL="redis://127.0.0.1:1/0"), "Redis cannot be reached", "BRIEFBOX_REDIS_URL"
    )


def test_a_data_folder_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words in (("up",), ("migrate",), ("audit",)):
        one_sentence(run(*words, DATA_DIR=str(tmp_path / "file" / "data")), "BRIEFBOX_DATA_DIR")


def test_a_model_folder_without_weights(run: Run, tmp_path: Path) -> None:
    run("migrate")
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "nowhere"):
        one_sentence(
            run("doctor", ENGINE="transformers", BASE_MODEL=str(tmp_path / folder)), "BRIEFBOX_BASE_MODEL"
        )


def test_doctor_asks_the_model_server(run: Run) -> None:
    run("migrate")
    with OpenAIServer(models=("tiny",)) as server:
        checks = json.loads(run("doctor", "--json", ENGINE="openai", OPENAI_URL=server.url).stdout)
    [model] = [check for check in checks if check["check"] == "model"]
    assert model == {"check": "model", "ok": True, "says": f"tiny at {server.url}"}
    checks = json.loads(run("doctor", "--json", ENGINE="openai", OPENAI_URL=server.url).stdout)
    [model] = [check for check in checks if check["check"] == "model"]
    assert not model["ok"]
    assert "is it running?" in model["says"]


def test_a_wrong_setting_names_its_variable(run: Run) -> None:
    one_sentence(run("audit", BATCH_SIZE="many"), "BRIEFBOX_BATCH_SIZE='many'", "docs/configuration.md")


def test_a_new_person_gets_a_link(run: Run) -> None:
    run("migrate")
    made = json.loads(run("user", "add", "ana@larkspur.example", "--json").stdout)
    assert made["role"] == "agent"
    assert "/link/" in made["link"]
    one_sentence(run("user", "add", "ana@larkspur.example"), "ana@larkspur.example")


def test_harvest_and_train_without_corrections_say_what_to_do(run: Run) -> None:
    run("migrate")
    assert "Nothing to harvest" in run("dataset", "harvest").stdout
    one_sentence(run("train", "--no-wait"), "briefbox dataset harvest")
    one_sentence(run("adapters", "promote", "none"), "no adapter named none", "briefbox train")


def test_an_audit_of_a_new_installation_is_clean(run: Run) -> None:
    run("migrate")
    done = run("audit", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["clean"] is True


def children_of(pid: int) -> list[int]:
    """Ids of the direct children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_restarts_what_dies_and_leaves_no_process_behind(tmp_path: Path, ending: signal.Signals) -> None:
    values = {"DATA_DIR": str(tmp_path / "d"), "ENGINE": "fake", "DESK_PORT": "0"}
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **{f"BRIEFBOX_{k}": v for k, v in values.items()}}
    with (tmp_path / "log").open("wb") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "briefbox", "up"],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "/link/" in (tmp_path / "log").read_text(), "the set-up link")
        wait_for(lambda: len(children_of(up.pid)) == 6, "six processes")
        first = children_of(up.pid)
        os.kill(first[3], signal.SIGKILL)
        wait_for(
            lambda: len(children_of(up.pid)) == 6 and children_of(up.pid) != first,
            "the killed one to be started again",
        )
        assert "was killed by signal 9" in (tmp_path / "log").read_text()
        family = children_of(up.pid)
        time.sleep(1)
        up.send_signal(ending)
        code = up.wait(60)
        wait_for(lambda: not any(alive(pid) for pid in family), "the end of every process", seconds=30)
        assert code == (0 if ending != signal.SIGKILL else -9)
    finally:
        if up.poll() is None:
            up.kill()


def test_a_second_up_on_the_same_data_folder_is_refused(run: Run, tmp_path: Path) -> None:
    from briefbox.cli.supervisor import _lock

    (tmp_path / "d").mkdir()
    with _lock(tmp_path / "d"):
        one_sentence(run("up"), "Another briefbox is running")


def test_migrate_down_and_up(run: Run) -> None:
    assert "0006" in run("migrate").stdout
    assert "0001" in run("migrate", "0001").stdout
    assert "None" in run("migrate", "base").stdout
    assert "0006" in run("migrate").stdout


def test_people_are_managed_from_the_command_line(run: Run) -> None:
    run("migrate")
    made = json.loads(
        run("user", "add", "ana@larkspur.example", "--role", "reviewer", "--hours", "2", "--json").stdout
    )
    assert made["role"] == "reviewer"
    link = json.loads(run("user", "link", "ana@larkspur.example", "--json").stdout)["link"]
    assert link != made["link"]
    one_sentence(run("user", "role", "ana@larkspur.example", "root"), "agent, reviewer, admin")
    assert "is now admin" in run("user", "role", "ana@larkspur.example", "admin").stdout
    one_sentence(run("user", "role", "ana@larkspur.example", "agent"), "last admin")
    one_sentence(run("user", "disable", "ana@larkspur.example"), "last admin")
    run("user", "add", "ben@larkspur.example")
    one_sentence(run("user", "mailboxes", "ben@larkspur.example", "nowhere"), "no mailbox nowhere")
    one_sentence(run("user", "mailboxes", "ben@larkspur.example"), "--all")
    assert "all mailboxes" in run("user", "mailboxes", "ben@larkspur.example", "--all").stdout
    assert "can no longer sign in" in run("user", "disable", "ben@larkspur.example").stdout
    one_sentence(run("user", "link", "ben@larkspur.example"), "briefbox user enable")
    assert "can sign in again" in run("user", "enable", "ben@larkspur.example").stdout
    assert "in 0 browsers" in run("user", "sign-out", "ben@larkspur.example").stdout
    one_sentence(run("user", "second-factor-off", "ben@larkspur.example"), "has no second factor")
    listed = {person["email"]: person for person in json.loads(run("user", "list", "--json").stdout)}
    assert listed["ana@larkspur.example"]["role"] == "admin"
    assert listed["ben@larkspur.example"]["mailboxes"] is None
    assert "ben@larkspur.example" in run("user", "list").stdout


def test_a_desk_on_its_own_prints_a_set_up_link_while_nobody_can_sign_in(run: Run, tmp_path: Path) -> None:
    run("migrate")
    values = {"DATA_DIR": str(tmp_path / "d"), "ENGINE": "fake", "DESK_PORT": "0"}
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **{f"BRIEFBOX_{k}": v for k, v in values.items()}}
    said = {}
    for extra in ([], ["--no-set-up-link"]):
        log = tmp_path / f"log{len(extra)}"
        with log.open("wb") as file:
            desk = subprocess.Popen(
                [sys.executable, "-m", "briefbox", "desk", *extra], env=environment, stdout=file, stderr=file
            )
        try:
            wait_for(lambda log=log: "answers at" in log.read_text(), "the desk")
            time.sleep(1)
        finally:
            desk.terminate()
            assert desk.wait(20) == 0
        said[bool(extra)] = "/link/" in log.read_text()
    assert said == {False: True, True: False}
