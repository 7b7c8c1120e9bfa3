"""The plan of a step: as large packs as the memory bears, whatever the number format."""

import pytest

from briefbox.errors import OutOfMemoryError
from training.plan import choose
from training.rows import Row

# Twenty examples of 500 tokens, 200 of them common, 60 to be learned.
ROWS = [
    Row(tuple(range(200)), tuple(range(number, number + 300)), (0.0,) * 240 + (1.0,) * 60)
    for number in range(20)
]
# SmolLM2-135M's.
SHAPE = {"layers": 30, "hidden": 576, "inner": 1536, "vocabulary": 49_152}


def test_half_the_bytes_for_a_value_make_larger_packs_of_the_same_step() -> None:
    whole, half = (
        choose(**SHAPE, value_bytes=size, rows=ROWS, step_tokens=8192, budget=2.4e9) for size in (4, 2)
    )
    assert not whole.checkpointing
    assert not half.checkpointing
    assert half.pack_tokens > whole.pack_tokens
    assert half.packs_per_step < whole.packs_per_step
    for plan in (whole, half):
        assert plan.pack_tokens * plan.packs_per_step == pytest.approx(8192, rel=0.15)


def test_activations_are_computed_again_where_they_do_not_fit() -> None:
    small = choose(**SHAPE, value_bytes=2, rows=ROWS, step_tokens=8192, budget=0.25e9)
    assert small.checkpointing


def test_a_row_that_fits_no_memory_says_what_to_lower() -> None:
    with pytest.raises(OutOfMemoryError, match="longest example has 500 tokens") as raised:
        choose(**SHAPE, value_bytes=2, rows=ROWS, step_tokens=8192, budget=1e6)
    assert "BRIEFBOX_MAX_EMAIL_TOKENS" in str(raised.value)
