import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from briefbox.errors import SettingsError
from briefbox.settings import Settings
from briefbox.store.secrets import Cipher, cipher


def test_a_password_comes_back_only_for_its_own_row(settings: Settings) -> None:
    box = cipher(settings)
    token = box.encrypt("support", "hunter2")
    assert "hunter2" not in token
    assert cipher(settings).decrypt("support", token) == "hunter2"
    with pytest.raises(SettingsError, match="written for support"):
        box.decrypt("sales", token)


def test_the_key_file_is_for_its_owner_only(settings: Settings) -> None:
    cipher(settings)
    assert stat.S_IMODE((settings.data_dir / "secret.key").stat().st_mode) == 0o600


def test_another_key_is_one_sentence_with_the_fix(settings: Settings) -> None:
    token = Cipher("A" * 43 + "=").encrypt("support", "x")
    with pytest.raises(SettingsError, match="briefbox mailbox add support --replace"):
        cipher(settings).decrypt("support", token)


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="BRIEFBOX_SECRET_KEY"):
        Cipher("short")


def test_threads_of_one_process_share_the_key(settings: Settings) -> None:
    settings.ensure_data_dir()
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda n: cipher(settings).encrypt("support", str(n)), range(32)))
    assert [cipher(settings).decrypt("support", token) for token in tokens] == [str(n) for n in range(32)]
    assert [path.name for path in settings.data_dir.iterdir()] == ["secret.key"]
