"""models/attention.py: both ways to compute a part agree, and other models' attention is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from briefbox.errors import ModelError
from models import attention
from models.attention import check_supported


def test_the_kernel_and_plain_products_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(2, 3, 8, 16), torch.randn(2, 3, 20, 16), torch.randn(2, 3, 20, 16)
    mask = torch.zeros(2, 1, 8, 20).masked_fill_(torch.rand(2, 1, 8, 20) < 0.3, -torch.inf)
    results = []
    for few in (0, 100):
        monkeypatch.setattr(attention, "FEW_QUERIES", few)
        results.append(attention._softmax_part(query, key, value, mask, 0.25))
    for kernel, plain in zip(*results, strict=True):
        torch.testing.assert_close(kernel, plain, atol=1e-5, rtol=1e-5)
    scores = (query @ key.transpose(2, 3)) * 0.25 + mask
    torch.testing.assert_close(results[0][1], scores.logsumexp(dim=-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results[0][0], scores.softmax(dim=-1) @ value, atol=1e-5, rtol=1e-5)


def test_the_model_cannot_be_run_without_a_session(loaded: Any) -> None:
    with pytest.raises(ModelError, match="Session"):
        loaded.model(input_ids=torch.tensor([[1, 2]]))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"sliding_window": 512}, "sliding windows of 512 tokens"),
        ({"attn_logit_softcapping": 50.0}, "soft-capped"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
    ],
)
def test_attention_of_another_kind_is_refused_with_a_way_out(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError, match=f"{reason}.*BRIEFBOX_ENGINE=openai"):
        check_supported(SimpleNamespace(model_type="other", **config), 2000)


@pytest.mark.parametrize(
    "config",
    [{}, {"sliding_window": 4096}, {"sliding_window": 512, "use_sliding_window": False}],
)
def test_plain_attention_and_windows_that_are_wide_enough_are_taken(config: dict[str, Any]) -> None:
    check_supported(SimpleNamespace(model_type="plain", **config), 2000)
