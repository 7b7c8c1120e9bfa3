"""models/linear.py: laid out differently, computed the same."""

import pytest
import torch

import models.linear
from models.linear import PackedLinear, pack_linears


class Small(torch.nn.Module):
    device = torch.device("cpu")

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.first = torch.nn.Linear(64, 96, dtype=dtype)
        self.second = torch.nn.Linear(96, 32, bias=False, dtype=dtype)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(torch.relu(self.first(rows)))
        return result


@pytest.mark.parametrize("shape", [(1, 64), (3, 64), (1, 200, 64)])
def test_packed_layers_compute_what_plain_ones_do(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(models.linear, "_gain", lambda _: 2.0)
    torch.manual_seed(3)
    model, rows = Small(torch.float32), torch.randn(shape)
    with torch.inference_mode():
        plain = model(rows)
        assert pack_linears(model)
        assert isinstance(model.first, PackedLinear)
        torch.testing.assert_close(model(rows), plain, atol=1e-5, rtol=1e-5)


def test_nothing_is_changed_where_it_is_not_faster_or_the_format_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models.linear, "_gain", lambda _: 1.0)
    slow, short = Small(torch.float32), Small(torch.bfloat16)
    assert not pack_linears(slow)
    assert not pack_linears(short)
    assert type(slow.first) is type(short.first) is torch.nn.Linear


def test_the_gain_is_measured() -> None:
    assert 0 < models.linear._gain(torch.nn.Linear(64, 96)) < 1000
