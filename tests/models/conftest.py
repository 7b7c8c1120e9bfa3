"""The packaged model, converted once per machine, and a tiny random model with its tokenizer."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from briefbox.schemas import BriefRequest, Category
from briefbox.settings import Settings, load_settings
from models.base import BaseModel, file_sha256, resolve_base_model

CATEGORIES = (
    Category(name="Billing", description="invoices, charges, refunds"),
    Category(name="Billing dispute", description="the customer contests a charge"),
    Category(name="Delivery", description="parcels and tracking"),
)


@pytest.fixture(scope="session")
def packaged() -> BaseModel:
    """The packaged model in a folder that outlives the test run: converting takes half a minute."""
    folder = os.environ.get("BRIEFBOX_TEST_MODELS") or f"/tmp/briefbox-test-models-{os.getuid()}"
    return resolve_base_model(load_settings(data_dir=Path(folder)))


@pytest.fixture(scope="session")
def tokenizer(packaged: BaseModel) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(packaged.path, local_files_only=True)


@pytest.fixture(scope="session")
def tiny(packaged: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """A random model of 2 layers with the real tokenizer. Large weights, so that its answers differ."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    # The machine may be busy with other tests, and then two threads wait for each other longer than one works.
    torch.set_num_threads(1)
    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("tiny") / "tiny-random"
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.4,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(packaged.path / name, folder / name)
    return BaseModel("tiny-random", folder, file_sha256(folder / "model.safetensors"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(
        data_dir=tmp_path / "data", device="cpu", max_headline_tokens=6, max_summary_tokens=10
    )


@pytest.fixture(scope="session")
def loaded(tiny: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One engine on the tiny model for the whole run."""
    import torch

    from models.transformers_engine import TransformersEngine

    settings = load_settings(
        data_dir=tmp_path_factory.mktemp("data"), device="cpu", max_headline_tokens=6, max_summary_tokens=10
    )
    return TransformersEngine(settings, base=tiny, dtype=torch.float32)


@pytest.fixture(scope="session")
def plain_model(tiny: BaseModel) -> Any:
    """The tiny model as transformers runs it, for reference."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny.path, dtype=torch.float32).eval()


@pytest.fixture
def engine(loaded: Any) -> Iterator[Any]:
    """The tiny engine, without adapters before and after each test."""
    yield loaded
    for name in loaded.adapters:
        loaded.drop_adapter(name)


def make_request(text: str = "My parcel 4711 is late. Where is it?", **changes: Any) -> BriefRequest:
    values = {"subject": "Late parcel", "sender": "ana@example.org", "categories": CATEGORIES} | changes
    return BriefRequest(text=text, **values)


@pytest.fixture
def request_for() -> Any:
    """Makes a BriefRequest from a text and changed fields."""
    return make_request


@pytest.fixture
def other_base(tiny: BaseModel) -> BaseModel:
    """A base model of the same shape with other weights."""
    return replace(tiny, sha256="0" * 64)
