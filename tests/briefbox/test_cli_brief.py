"""`briefbox brief`: emails in, briefs out, in order, whatever is among them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import briefbox.demo
import models.engine
from briefbox.cli import app
from briefbox.errors import AdapterError, InvalidValueError, ModelError, SettingsError
from briefbox.schemas import BriefRequest
from models.engine import FakeEngine
from tests.conftest import make_email

DEMO = Path(briefbox.demo.__file__).parent / "emails"
KEYS = [
    "headline",
    "summary",
    "priority",
    "priority_confidence",
    "priority_scores",
    "category",
    "category_confidence",
    "category_scores",
    "needs_human",
    "language",
    "grounding",
    "instructions_found",
    "cut",
    "tokens_in",
    "tokens_out",
    "seconds",
    "engine",
    "base_model",
    "adapter",
    "prompt_version",
]

Brief = Callable[..., Result]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BRIEFBOX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("BRIEFBOX_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BRIEFBOX_ENGINE", "fake")
    monkeypatch.setenv("BRIEFBOX_BATCH_SIZE", "4")


@pytest.fixture
def brief() -> Brief:
    """`brief("a.eml", "--json", stdin=b"...")` in this process."""

    def brief(*words: str | Path, stdin: bytes = b"") -> Result:
        return CliRunner().invoke(app, ["brief", *map(str, words)], input=stdin)

    return brief


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeEngine]:
    """`engine(fail_on="x")` is the engine that the next command uses."""

    def make(**behaviour: Any) -> FakeEngine:
        made = FakeEngine(**behaviour)
        monkeypatch.setattr(models.engine, "make_engine", lambda settings: made)
        return made

    return make


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def jsonl(path: Path, *values: Any) -> Path:
    path.write_text("".join((v if isinstance(v, str) else json.dumps(v)) + "\n" for v in values))
    return path


def mail(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"m{number}", "subject": f"Question {number}", "body": f"Where is order {number}?"} | more


def asked(engine: FakeEngine) -> list[BriefRequest]:
    return [request for requests in engine.history for request in requests]


def test_a_line_has_exactly_the_documented_keys(brief: Brief) -> None:
    [row] = rows(brief(DEMO / "01-order-not-arrived.eml", "--json"))
    assert list(row) == ["file", *KEYS]
    assert row["file"] == str(DEMO / "01-order-not-arrived.eml")
    assert list(row["grounding"]) == ["removed", "sentences", "quoted"]
    assert (row["engine"], row["category"]) == ("fake", "shipping")
    assert sum(row["category_scores"].values()) == pytest.approx(1)
    assert len(row["category_scores"]) == 10


def test_a_folder_gives_its_emails_sorted(brief: Brief) -> None:
    result = brief(DEMO, "--json")
    assert result.exit_code == 0
    assert [row["file"] for row in rows(result)] == [str(path) for path in sorted(DEMO.glob("*.eml"))]


def test_without_json_a_person_can_read_it(brief: Brief) -> None:
    result = brief(DEMO / "01-order-not-arrived.eml")
    for words in ("01-order-not-arrived.eml", "urgent 80% | shipping 80%", "Order LK-48213"):
        assert words in result.stdout


def test_a_thousand_lines_keep_their_order(
    brief: Brief, tmp_path: Path, engine: Callable[..., FakeEngine]
) -> None:
    made = engine()
    path = jsonl(tmp_path / "all.jsonl", *(mail(number) for number in range(1000)))
    result = brief(path, "--json")
    assert [row["id"] for row in rows(result)] == [f"m{number}" for number in range(1000)]
    assert list(rows(result)[0]) == ["id", *KEYS]
    assert {len(requests) for requests in made.history} == {16, 8}


def test_standard_input_is_an_email_or_lines(brief: Brief) -> None:
    assert rows(brief("-", "--json", stdin=make_email(7)))[0]["file"] == "standard input"
    lines = b"\n \n" + json.dumps(mail(1)).encode() + b"\n\n" + json.dumps(mail(2)).encode()
    assert [row["id"] for row in rows(brief("-", "--json", stdin=lines))] == ["m1", "m2"]


def test_several_paths_come_one_after_the_other(brief: Brief, tmp_path: Path) -> None:
    (tmp_path / "a.eml").write_bytes(make_email(1))
    path = jsonl(tmp_path / "b.jsonl", mail(1), mail(2))
    found = rows(brief(path, tmp_path / "a.eml", path, "--json"))
    assert [row.get("id") or "file" for row in found] == ["m1", "m2", "file", "m1", "m2"]


def test_a_reply_is_asked_with_its_history_apart(
    brief: Brief, tmp_path: Path, engine: Callable[..., FakeEngine]
) -> None:
    made = engine()
    body = (
        "Any news?\n\nOn Mon, 1 Jun 2026 at 10:00, Ana <ana@example.org> wrote:\n> My order 4711\n> is late."
    )
    brief(jsonl(tmp_path / "a.jsonl", mail(1, body=body, **{"from": "Ana"})))
    [request] = asked(made)
    assert (request.text, request.sender) == ("Any news?", "Ana")
    assert "order 4711" in request.earlier[0].text


# --- what is broken


def test_bad_lines_are_named_and_the_others_go_on(brief: Brief, tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "bad.jsonl",
        mail(1),
        "{broken",
        "[1]",
        "",
        {"id": "empty", "subject": " ", "body": None},
        {"id": "wrong", "subject": "x", "body": 5},
        {"subject": "without id"},
        mail(2),
    )
    result = brief(path, "--json")
    assert result.exit_code == 1
    assert [row["id"] for row in rows(result)] == ["m1", "7", "m2"]
    for number, words in ((2, "no JSON"), (3, "no JSON object"), (5, "neither"), (6, '"body" is no text')):
        assert f"line {number}: " in result.stderr
        assert words in result.stderr
    assert "line 4" not in result.stderr


def test_bad_files_are_named_and_the_others_go_on(brief: Brief, tmp_path: Path) -> None:
    (tmp_path / "good.eml").write_bytes(make_email(1))
    (tmp_path / "empty.eml").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "blank.txt").write_bytes(b" \n\n")
    names = ("nowhere.eml", "empty.eml", "folder", "blank.txt", "good.eml")
    result = brief(*(tmp_path / name for name in names), "--json")
    assert result.exit_code == 1
    assert [row["file"] for row in rows(result)] == [str(tmp_path / "good.eml")]
    for words in ("No such file", "email is empty", "holds no .eml file", "It is empty."):
        assert words in result.stderr
    assert len(result.stderr.splitlines()) == 4


def test_nothing_at_all_is_an_error(brief: Brief) -> None:
    result = brief("-")
    assert result.exit_code == 1
    assert result.stderr == "standard input: It is empty.\n"


def test_too_long_files_and_lines_are_left_out(
    brief: Brief, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIEFBOX_MAX_EMAIL_BYTES", "10000")
    long = mail(1, body="x" * 50_000)
    path = jsonl(tmp_path / "long.jsonl", mail(0), long, mail(2), long)
    (tmp_path / "long.eml").write_bytes(make_email(1, body="x " * 9000))
    result = brief(path, tmp_path / "long.eml", "--json")
    assert [row["id"] for row in rows(result)] == ["m0", "m2"]
    assert result.stderr.count("longer than 10000 bytes") == 3
    assert "line 4" in result.stderr


def test_characters_that_no_output_can_hold_do_no_harm(brief: Brief, tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "odd.jsonl", r'{"id": "\ud800", "subject": "a\u0000b\udfff", "body": "\ud83d hello"}'
    )
    odd = tmp_path / os.fsdecode(b"caf\xe9.eml")
    odd.write_bytes(make_email(1))
    result = brief(path, odd, "--json")
    assert result.exit_code == 0
    assert [row.get("id") or row["file"] for row in rows(result)] == ["?", str(tmp_path / "caf\ufffd.eml")]


# --- the engine


def test_an_email_that_fails_is_reported_alone(
    brief: Brief, tmp_path: Path, engine: Callable[..., FakeEngine]
) -> None:
    engine(fail_on="order 5?", break_on="order 6?")
    result = brief(jsonl(tmp_path / "a.jsonl", *map(mail, range(10))), "--json")
    assert result.exit_code == 1
    assert [row["id"] for row in rows(result)] == [f"m{n}" for n in range(10) if n not in (5, 6)]
    assert "line 6: The fake engine was told to fail" in result.stderr
    assert "line 7: RuntimeError: the fake device broke" in result.stderr


def test_out_of_memory_halves_the_batch_and_then_the_email(
    brief: Brief, tmp_path: Path, engine: Callable[..., FakeEngine]
) -> None:
    made = engine(most_at_once=3, most_chars=4000)
    long, endless = mail(1, body="one two " * 700), mail(2, body="one two " * 9000)
    result = brief(jsonl(tmp_path / "a.jsonl", mail(0), long, endless, *map(mail, range(3, 9))), "--json")
    assert [row["id"] for row in rows(result)] == [f"m{n}" for n in range(9)]
    assert [row["cut"] for row in rows(result)][:3] == [False, True, True]
    assert max(len(requests) for requests in made.history[3:]) <= 9
    assert result.exit_code == 0


def test_an_email_that_never_fits_is_reported(
    brief: Brief, tmp_path: Path, engine: Callable[..., FakeEngine]
) -> None:
    engine(most_chars=30)
    result = brief(jsonl(tmp_path / "a.jsonl", mail(1, body="word " * 100)), "--json")
    assert result.exit_code == 1
    assert "not even half of its text" in result.stderr


def test_an_engine_that_does_nothing_right_ends_the_run(
    brief: Brief, tmp_path: Path, engine: Callable[..., FakeEngine]
) -> None:
    made = engine(fail_on="Where")
    result = brief(jsonl(tmp_path / "a.jsonl", *map(mail, range(100))), "--json")
    assert isinstance(result.exception, ModelError)
    assert "The last 20 emails all failed" in str(result.exception)
    assert len(made.history) < 30


def test_an_adapter_that_is_none_is_refused(brief: Brief, tmp_path: Path) -> None:
    result = brief(DEMO, "--adapter", tmp_path)
    assert isinstance(result.exception, AdapterError)


def test_the_adapter_s_name_goes_with_every_brief(
    brief: Brief, tmp_path: Path, engine: Callable[..., FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine()

    def load(path: Path, name: str = "", expected_sha256: str | None = None) -> str:
        assert path == tmp_path
        made._cards["lora-1"] = None  # type: ignore[assignment]
        return "lora-1"

    monkeypatch.setattr(made, "load_adapter", load)
    assert {row["adapter"] for row in rows(brief(DEMO, "--json", "--adapter", tmp_path))} == {"lora-1"}


# --- options


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "Tyres", "description": "tubes too"}, {"name": "Brakes"}]',
        "\ufeff# ours\n\nTyres: tubes too\nBrakes\n",
    ],
)
def test_categories_of_one_s_own(
    brief: Brief, tmp_path: Path, engine: Callable[..., FakeEngine], text: str
) -> None:
    made = engine()
    (tmp_path / "categories").write_text(text, encoding="utf-8")
    [row] = rows(brief(DEMO / "01-order-not-arrived.eml", "--json", "--categories", tmp_path / "categories"))
    assert list(row["category_scores"]) == ["Tyres", "Brakes"]
    assert [c.description for c in asked(made)[0].categories] == ["tubes too", ""]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no category"),
        ("# nothing\n", "holds no category"),
        ("[", "is no JSON"),
        ('["a"]', "entry 1"),
        ('[{"name": 1}]', "entry 1"),
        ("a: x\na: y\n", "line 2: the category 'a' is there twice"),
        (": x", "has no name"),
        ("\ud800", "cannot be read"),
    ],
)
def test_categories_that_cannot_be_used(brief: Brief, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "categories").write_bytes(text.encode("utf-8", "surrogatepass"))
    result = brief(DEMO, "--categories", tmp_path / "categories")
    assert isinstance(result.exception, InvalidValueError)
    assert says in str(result.exception)


def test_the_options_win_over_the_settings(
    brief: Brief, engine: Callable[..., FakeEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine()
    monkeypatch.setenv("BRIEFBOX_BRIEF_LANGUAGE", "de")
    brief(DEMO / "01-order-not-arrived.eml")
    brief(DEMO / "01-order-not-arrived.eml", "--text-language", "fr")
    brief(DEMO / "01-order-not-arrived.eml", "--text-language", "email")
    assert [request.written_in for request in asked(made)] == ["de", "fr", ""]
    assert isinstance(brief(DEMO, "--text-language", "french").exception, SettingsError)
    assert isinstance(brief(DEMO, "--engine", "none").exception, SettingsError)


# --- as a process


def run(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "briefbox", "brief", *words], input=stdin, capture_output=True, timeout=120
    )


def test_the_process_prints_lines_only_on_standard_output() -> None:
    done = run("-", "/nowhere.eml", "--json", stdin=make_email(1))
    assert json.loads(done.stdout)["headline"] == "Question number 1"
    assert done.stderr.decode() == "/nowhere.eml: It cannot be read (No such file or directory).\n"
    assert done.returncode == 1


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *(mail(number) for number in range(2000)))
    command = f"{sys.executable} -m briefbox brief {path} --json | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, timeout=120)
    assert json.loads(done.stdout)["id"] == "m0"
    assert (done.stderr, done.returncode) == (b"", 0)


def test_an_expected_error_is_one_sentence() -> None:
    done = run("-", "--engine", "none", stdin=make_email(1))
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"briefbox: BRIEFBOX_ENGINE")
