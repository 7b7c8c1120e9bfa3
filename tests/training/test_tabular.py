"""training.tabular: exports of other systems, as they really are."""

import json
from pathlib import Path

import pytest

from briefbox.categories import DEFAULT_CATEGORIES
from briefbox.db import Database
from briefbox.errors import TrainingError
from briefbox.settings import Settings
from training.dataset import import_version, read_dataset
from training.tabular import Columns, Imported, read_file

TWO = Columns(input="email", output="summary")


def read(tmp_path: Path, content: bytes, columns: Columns = TWO, name: str = "export.csv") -> Imported:
    path = tmp_path / name
    path.write_bytes(content)
    return read_file(path, columns)


ROWS = "email{0}summary\r\n{1}Größe passt nicht{1}{0}Will tauschen\r\nWo ist mein Paket?{0}Paket fehlt, für 12 €\r\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_any_common_encoding_and_delimiter(tmp_path: Path, encoding: str, delimiter: str) -> None:
    text = ROWS.format(delimiter, '"')
    text = text.replace("Paket fehlt, für 12 €", '"Paket fehlt, für 12 €"')
    found = read(tmp_path, text.encode(encoding))
    assert [e.input.text for e in found.examples] == ["Größe passt nicht", "Wo ist mein Paket?"]
    assert [e.output.summary for e in found.examples] == ["Will tauschen", "Paket fehlt, für 12 €"]
    assert found.delimiter == delimiter
    assert found.bad == []


def test_quotes_and_newlines_inside_cells(tmp_path: Path) -> None:
    content = 'id,email,summary\n1,"Hello,\nit says ""broken"".\r\n\r\nBye",Says broken\n2,second,Two\n'
    found = read(tmp_path, content.encode())
    assert found.examples[0].input.text == 'Hello,\nit says "broken".\r\n\r\nBye'
    assert found.examples[1].input.text == "second"


def test_every_bad_row_is_named_by_its_line_and_the_others_are_taken(tmp_path: Path) -> None:
    content = (
        "email,summary,priority\n"  # 1
        "good one,fine,high\n"
        ",no email,low\n"  # 3
        "too,many,low,cells\n"  # 4
        "\n"
        "nothing to learn,,\n"  # 6
        'multi,"line\ncell",normal\n'  # 7 and 8
        "priority,wrong,sometime\n"  # 9
        'a quote,"that never closes,low\n'  # 10
        "last one,is read,LOW\n"
    )
    found = read(tmp_path, content.encode(), Columns(input="email", output="summary", priority="priority"))
    assert [(row.line, row.reason.split(":")[0]) for row in found.bad] == [
        (3, "the email is empty"),
        (4, "4 cells where the first line has 3"),
        (6, "nothing to learn"),
        (9, "the priority 'sometime' is not one of urgent, high, normal, low"),
        (10, "a quote opens here and never closes"),
    ]
    assert [e.input.text for e in found.examples] == ["good one", "multi", "last one"]
    assert found.examples[2].output.priority == "low"
    assert found.num_rows == len(found.examples) + len(found.bad)


def test_many_open_quotes_do_not_read_the_file_again_and_again(tmp_path: Path) -> None:
    content = "email,summary\n" + 'bad,"open\n' * 3 + "good,fine\n" * 20_000
    found = read(tmp_path, content.encode())
    assert [row.line for row in found.bad] == [2, 3, 4]
    assert found.repeated == 19_999


def test_categories_are_those_of_the_file(tmp_path: Path) -> None:
    content = "email,summary,topic\na b,s,Card lost\nc d,s,Top up\ne f,s,Card lost\n"
    found = read(tmp_path, content.encode(), Columns(input="email", output="summary", category="topic"))
    assert found.categories == ("Card lost", "Top up")
    assert [c.name for c in found.examples[0].input.categories] == ["Card lost", "Top up"]
    without = read(tmp_path, b"email,summary\na b,s\n")
    assert without.examples[0].input.categories == DEFAULT_CATEGORIES
    assert without.examples[0].output.category is None


def test_free_text_is_no_set_of_categories(tmp_path: Path) -> None:
    rows = "".join(f"mail {n},topic {n}\n" for n in range(100))
    with pytest.raises(TrainingError, match="100 different categories, which is free text"):
        read(tmp_path, f"email,category\n{rows}".encode(), Columns(input="email"))


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (b"", TWO, "is empty"),
        (b"text;summary\na;b\n", TWO, "no column 'email'.*found: 'text', 'summary'.*--input"),
        (b"email,note\na,b\n", TWO, "no column 'summary' .given with --output"),
        (b"email,note\na,b\n", Columns(input="email"), "nothing to learn besides 'email'"),
        (b"email,summary,summary\na,b,c\n", TWO, "more than once"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_what_was_found(
    tmp_path: Path, content: bytes, columns: Columns, message: str
) -> None:
    with pytest.raises(TrainingError, match=message):
        read(tmp_path, content, columns)


def test_jsonl_of_texts_and_objects(tmp_path: Path) -> None:
    lines: list[object] = [
        {"input": "Where is it?", "output": "Asks where it is.", "split": "dev"},
        {
            "input": {"subject": "Bill", "body": "Twice!", "sender": "Kim"},
            "output": {"priority": "High", "category": "Money", "headline": "Billed twice"},
            "split": "test",
        },
        {"input": "x", "output": 7},
        ["no object"],
        {"input": "flat", "priority": "low"},
    ]
    text = "\n".join(map(json.dumps, lines)) + "\n{broken\n"
    found = read(tmp_path, text.encode(), Columns(), "export.jsonl")
    first, second, third = found.examples
    assert (first.output.summary, first.split) == ("Asks where it is.", "validation")
    assert (second.input.subject, second.input.text, second.split) == ("Bill", "Twice!", "test")
    assert second.output.priority == "high"
    assert second.output.summary is None
    assert third.output.priority == "low"
    assert [row.line for row in found.bad] == [3, 4, 6]
    assert "not JSON" in found.bad[2].reason


def test_an_import_is_a_version_with_its_parts_and_its_report(
    tmp_path: Path, database: Database, settings: Settings
) -> None:
    rows = [f"The order {n} never came to house {n} in street {n * 7},Missing {n},{n % 2}" for n in range(40)]
    rows[5] = "Call me at +49 30 901820 about the lamp that flickers,Wants a call at +49 30 901820,1"
    rows += [rows[0], "The order 1 never came to house 1 in street 7,Missing 1,0", "short,row"]
    found = read(tmp_path, ("email,summary,category\n" + "\n".join(rows)).encode())
    with database.write() as session:
        dataset, new = import_version(session, settings, found, name="export.csv", actor="cli:tests")
    assert new
    assert dataset.source == "import"
    assert dataset.report["bad_rows"] == [[44, "2 cells where the first line has 3"]]
    assert dataset.report["left_out"] == {"the same row again": 1, "contradicts another": 2}
    assert dataset.report["redacted"] == {"phone": 2}
    examples = read_dataset(settings.data_dir / dataset.path, content_hash=dataset.content_hash)
    assert len(examples) == 39
    assert {e.split for e in examples} == {"train", "validation", "test"}
    assert "901820" not in (settings.data_dir / dataset.path).read_text()
    # 2. Again: the same version, and the same parts whatever order the rows have.
    path = tmp_path / "export.csv"
    head, *body = path.read_text().splitlines()
    path.write_text("\n".join([head, *reversed(body)]))
    again = read_file(path, TWO)
    with database.write() as session:
        other, _ = import_version(session, settings, again, name="export.csv", actor="cli:tests")
    parts = {e.id: e.split for e in read_dataset(settings.data_dir / other.path)}
    assert parts == {e.id: e.split for e in examples}


def test_a_split_column_is_honoured(tmp_path: Path, database: Database, settings: Settings) -> None:
    part = ["train", "test", "validation"]
    rows = "".join(f"A question number {n} about thing {n * n},s,{part[n % 3]}\n" for n in range(12))
    found = read(tmp_path, f"email,summary,split\n{rows}".encode())
    with database.write() as session:
        dataset, _ = import_version(session, settings, found, name="f.csv", actor="cli:tests")
    for example in read_dataset(settings.data_dir / dataset.path):
        number = int(example.input.text.split()[3])
        assert example.split == part[number % 3]
