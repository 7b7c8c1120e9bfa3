from pathlib import Path

import pytest

from briefbox.errors import SettingsError
from briefbox.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BRIEFBOX_DATA_DIR", str(tmp_path))


def test_the_defaults_are_embedded(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.database_address == f"sqlite:///{tmp_path / 'briefbox.db'}"
    assert settings.redis_address.startswith("redis+socket://")


def test_a_postgres_address_is_used_with_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIEFBOX_DATABASE_URL", "postgresql://me:secret@db/briefbox")
    settings = load_settings()
    assert settings.database_address == "postgresql+psycopg://me:secret@db/briefbox"
    assert "me:secret" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("BATCH_SIZE", "many", "BRIEFBOX_BATCH_SIZE='many'"),
        ("BATCH_SIZE", "0", "greater than or equal to 1"),
        ("ENGINE", "gpt", "'transformers', 'openai' or 'fake'"),
        ("DATABASE_URL", "mysql://x", "postgresql://user:password@host/briefbox"),
        ("REDIS_URL", "localhost:6379", "redis://host:6379/0"),
    ],
)
def test_a_wrong_value_names_the_variable_and_the_fix(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(f"BRIEFBOX_{variable}", value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert f"BRIEFBOX_{variable}" in str(error.value)
    assert says in str(error.value)


def test_a_wrong_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIEFBOX_DATABASE_URL", "mysql://me:hunter2@db/x")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "hunter2" not in str(error.value)


def test_a_secret_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "redis").write_text("redis://:pw@cache/1\n")
    monkeypatch.setenv("BRIEFBOX_REDIS_URL_FILE", str(tmp_path / "redis"))
    assert load_settings().redis_address == "redis://:pw@cache/1"


def test_a_named_secret_file_that_cannot_be_read_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIEFBOX_SECRET_KEY_FILE", "/nowhere/key")
    with pytest.raises(SettingsError, match="BRIEFBOX_SECRET_KEY_FILE names /nowhere/key"):
        load_settings()


def test_a_data_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="BRIEFBOX_DATA_DIR"):
        load_settings(data_dir=tmp_path / "file" / "data").ensure_data_dir()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().batch_size = 3  # type: ignore[misc]


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_a_long_data_folder_still_gives_a_socket_path_that_fits(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / ("x" * 120))
    assert len(str(settings.valkey_socket)) <= 107


def test_kinds_that_are_briefed_are_named_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().brief_kinds == ("customer",)
    monkeypatch.setenv("BRIEFBOX_BRIEF_KINDS", "customer, list")
    assert load_settings().brief_kinds == ("customer", "list")
    for wrong in ("customers", "own"):  # mail of our own is never briefed
        monkeypatch.setenv("BRIEFBOX_BRIEF_KINDS", wrong)
        with pytest.raises(SettingsError, match="BRIEFBOX_BRIEF_KINDS"):
            load_settings()
