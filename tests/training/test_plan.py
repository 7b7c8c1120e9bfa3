"""The plan of a step: as large packs as the memory bears, whatever the number format."""

import pytest

from briefbox.errors import OutOfMemoryError
from training.plan import choose
from training.rows import Row

# Two thousand examples of 500 tokens, 200 of them common, 60 to be learned.
ROWS = [
    Row(tuple(range(200)), tuple(range(number, number + 300)), (0.0,) * 240 + (1.0,) * 60)
    for number in range(2000)
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


def test_a_small_dataset_is_learned_in_smaller_steps() -> None:
    tokens = {
        count: plan.pack_tokens * plan.packs_per_step
        for count in (2, 50, 200)
        for plan in [choose(**SHAPE, value_bytes=2, rows=ROWS[:count], step_tokens=8192, budget=2.4e9)]
    }
    # 200 examples of 300 tokens of their own in about 64 steps; fewer make steps of as much as the prefix, or one row.
    assert tokens[200] == pytest.approx(200 + 200 * 300 / 64, rel=0.1)
    assert tokens[50] == tokens[2] == 500


def test_a_smaller_step_that_was_asked_for_stays() -> None:
    plan = choose(**SHAPE, value_bytes=2, rows=ROWS, step_tokens=1024, budget=2.4e9)
    assert plan.pack_tokens * plan.packs_per_step == pytest.approx(1024, rel=0.1)
