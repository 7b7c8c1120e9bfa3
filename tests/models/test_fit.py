"""models/fit.py: memory by arithmetic, checked against sizes that are known."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from briefbox.settings import Settings, load_settings
from models.fit import (
    PASS_TOKENS,
    PREFIXES,
    RECOMMENDED,
    RESERVED_TOKENS,
    Machine,
    fits,
    memory,
    ram_bytes,
    row_tokens,
    shape_of,
    this_machine,
    what_fits,
)
from tests.hub import CONFIG

EIGHT = RECOMMENDED["ibm-granite/granite-3.3-8b-instruct"]
CARDS = {"8 GB": 8 * 2**30, "24 GB": 24 * 2**30, "80 GB": 80 * 2**30}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path)


def card(total: int, precision: str = "bfloat16") -> Machine:
    return Machine("cuda", "a card", total, precision)


def test_weights_and_cache_of_a_known_model(settings: Settings) -> None:
    need = memory(EIGHT, settings, "bfloat16")
    assert need.weights == 2 * 8_170_000_000
    # 40 layers, keys and values, 8 heads of 128 numbers, 2 bytes each: 163,840 bytes a token.
    assert need.cache == 163_840 * (settings.max_batch_tokens + PREFIXES * RESERVED_TOKENS)
    assert need.total == need.weights + need.cache + need.overhead
    assert memory(EIGHT, settings, "float32").cache == 2 * need.cache


def test_a_batch_is_bounded_by_emails_and_by_tokens(settings: Settings) -> None:
    def tokens(**changes: int) -> int:
        changed = settings.model_copy(update=changes)
        return memory(EIGHT, changed, "bfloat16").cache // 163_840 - PREFIXES * RESERVED_TOKENS

    assert tokens(batch_size=2) == 2 * row_tokens(settings)
    assert tokens(batch_size=500) == settings.max_batch_tokens
    assert tokens(batch_size=500, max_batch_tokens=256) == row_tokens(settings)


def test_shapes_are_read_from_configurations() -> None:
    shape = shape_of(CONFIG, 7)
    assert shape is not None
    assert (shape.parameters, shape.kv_heads, shape.head_size, shape.intermediate) == (7, 2, 8, 64)
    old = shape_of({"n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50257}, 7)
    assert old is not None
    assert (old.layers, old.kv_heads, old.head_size, old.intermediate) == (12, 12, 64, 3072)
    experts = shape_of(CONFIG | {"num_experts_per_tok": 8, "moe_intermediate_size": 768, "head_dim": 128}, 7)
    assert experts is not None
    assert (experts.intermediate, experts.head_size) == (6144, 128)
    assert shape_of({}, 7) is None


@pytest.mark.parametrize(
    ("name", "total", "changes"),
    [
        ("ibm-granite/granite-3.3-2b-instruct", CARDS["8 GB"], {"max_batch_tokens": 8192}),
        ("ibm-granite/granite-3.3-8b-instruct", CARDS["24 GB"], {}),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", CARDS["80 GB"], {}),
    ],
)
def test_each_recommended_model_fits_its_card(
    settings: Settings, name: str, total: int, changes: dict[str, int]
) -> None:
    assert fits(RECOMMENDED[name], settings.model_copy(update=changes), card(total))


def test_what_fits_names_a_number_format_a_batch_size_and_a_smaller_model(settings: Settings) -> None:
    says = what_fits(EIGHT, settings, card(CARDS["24 GB"], "float32"))
    assert "BRIEFBOX_PRECISION=bfloat16" in says
    assert "the model ibm-granite/granite-3.3-2b-instruct" in says
    tight = memory(EIGHT, settings.model_copy(update={"batch_size": 4}), "bfloat16").total
    assert "BRIEFBOX_BATCH_SIZE=4," in what_fits(EIGHT, settings, card(int(tight / 0.9) + 1000))
    assert what_fits(EIGHT, settings, card(10**9)) == "No model fits here with these settings."


def test_ram_is_the_container_s_where_that_is_less(tmp_path: Path) -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = tmp_path / "memory.max"
    assert ram_bytes(limit) == whole
    limit.write_text("max\n")
    assert ram_bytes(limit) == whole
    limit.write_text("1000000\n")
    assert ram_bytes(limit) == 1_000_000


def test_this_machine_is_known(settings: Settings) -> None:
    machine = this_machine(settings.model_copy(update={"device": "cpu", "precision": "float32"}))
    assert (machine.device, machine.precision, machine.total) == ("cpu", "float32", ram_bytes())
    assert machine.usable < machine.total


def test_the_constants_are_those_of_the_engine() -> None:
    from models import session, transformers_engine

    assert transformers_engine.RESERVED_TOKENS == RESERVED_TOKENS
    assert session.PASS_TOKENS == PASS_TOKENS


def test_a_bigger_model_needs_more(settings: Settings) -> None:
    bigger = replace(EIGHT, parameters=2 * EIGHT.parameters)
    assert memory(bigger, settings, "bfloat16").total > memory(EIGHT, settings, "bfloat16").total
