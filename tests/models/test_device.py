"""models/device.py: facts of the machine."""

import pytest
import torch

import models.device
from models.device import choose_dtype


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [({"avx2"}, torch.float32), ({"avx2", "avx512_bf16"}, torch.bfloat16), ({"amx_bf16"}, torch.bfloat16)],
)
def test_the_cpu_computes_in_bfloat16_only_where_it_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(models.device, "cpu_flags", lambda: flags)
    assert choose_dtype(torch.device("cpu")) is dtype
