"""models/device.py: facts of the machine."""

from pathlib import Path

import pytest
import torch

import models.device
from briefbox.settings import load_settings
from models.device import choose_dtype, set_threads, usable_cores

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("flags", "faster", "dtype"),
    [
        ({"avx2"}, 9.0, torch.float32),
        ({"avx2", "avx512_bf16"}, 2.0, torch.bfloat16),
        ({"avx2", "avx512_bf16"}, 1.05, torch.float32),
        ({"amx_bf16"}, 2.0, torch.bfloat16),
    ],
)
def test_the_cpu_computes_in_bfloat16_only_where_it_has_it_and_is_faster(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], faster: float, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(models.device, "cpu_flags", lambda: flags)
    monkeypatch.setattr(models.device, "_matmul_seconds", lambda d: 1.0 if d == torch.bfloat16 else faster)
    assert choose_dtype(CPU, load_settings()) is dtype


def test_the_setting_decides_and_the_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert choose_dtype(CPU, load_settings(precision="bfloat16")) is torch.bfloat16
        assert choose_dtype(CPU, load_settings(precision="float32")) is torch.float32
    assert "BRIEFBOX_PRECISION=bfloat16" in caplog.text


def test_products_are_timed() -> None:
    assert 0 < models.device._matmul_seconds(torch.float32) < 10


def test_threads_follow_the_setting_or_the_cores_that_may_be_used() -> None:
    before = torch.get_num_threads()
    try:
        set_threads(load_settings(threads=1))
        assert torch.get_num_threads() == 1
        set_threads(load_settings())
        assert torch.get_num_threads() == usable_cores() >= 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 1), ("max 100000", 4), ("300000 100000", 3)])
def test_a_container_s_quota_bounds_the_threads(
    monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: quota)
    assert usable_cores() == cores
