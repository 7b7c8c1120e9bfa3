"""Judged conversations in a real database, and a base model small enough to train in a second."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from briefbox.db import Database
from briefbox.schemas import BriefRequest, Category, Example, ExampleOutput
from briefbox.settings import Settings, load_settings
from briefbox.tables import Brief, Confirmation, Conversation, Correction, Email, User
from models.base import BaseModel, resolve_base_model
from models.prompt import INSTRUCTIONS, RULES
from training.dataset import write_lines

CATEGORIES = (Category(name="Billing", description="invoices and refunds"), Category(name="Delivery"))
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CHAT_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def request_about(text: str) -> BriefRequest:
    return BriefRequest(
        subject="Parcel 4711", sender="Cleo <cleo@example.org>", text=text, categories=CATEGORIES
    )


def make_example(number: int = 1, **changes: Any) -> Example:
    """A line whose answer depends on its number."""
    urgent = number % 2 == 1
    output = ExampleOutput(
        priority="urgent" if urgent else "low",
        category="Billing" if urgent else "Delivery",
        headline=f"Matter {number}",
        summary=f"The customer writes about matter {number}.",
    )
    values: dict[str, Any] = {
        "id": f"brief-{number}",
        "input": request_about(f"Money is lost {number}" if urgent else f"Thank you {number}"),
        "output": output,
        "model_output": output,
        "strength": "confirmed",
        "conversation": f"c{number}",
        "sender": "s",
        "created_at": NOON,
    }
    return Example(**(values | changes))


class Support:
    """Writes what ingest, a worker and agents would have written."""

    def __init__(self, database: Database, deliver: Callable[..., list[int]], agent: User) -> None:
        self.database, self.agent, self._deliver = database, agent, deliver
        self._minute = 0

    def brief(self, raw: bytes, *, done: bool = True, **said: Any) -> Brief:
        """An email with its brief, in a conversation that is finished unless `done` says otherwise."""
        email_id = self._deliver(raw)[0]
        with self.database.write() as session:
            email = session.get_one(Email, email_id)
            assert email.conversation_id is not None
            conversation = session.get_one(Conversation, email.conversation_id)
            conversation.state = "done" if done else "open"
            values = {
                "priority": "normal",
                "category": "Billing",
                "headline": "A parcel",
                "summary": "A parcel is late.",
            } | said
            brief = Brief(
                email_id=email_id,
                conversation_id=email.conversation_id,
                priority_confidence=0.6,
                category_confidence=0.7,
                request=request_about(f"mail {email_id}").model_dump(mode="json"),
                engine="fake",
                base_model="fake",
                prompt_version="brief-1",
                created_at=NOON,
                **values,
            )
            session.add(brief)
        return brief

    def correct(self, brief: Brief, field: str, after: str, *, hand: bool = False) -> int:
        """Returns the correction's id. `hand`: made before there was any brief."""
        with self.database.write() as session:
            row = Correction(
                conversation_id=brief.conversation_id,
                brief_id=None if hand else brief.id,
                user_id=self.agent.id,
                field=field,
                before="",
                after=after,
                idempotency_key=f"key-{self._minute}",
                created_at=self._next(),
            )
            session.add(row)
        return row.id

    def confirm(self, brief: Brief, strength: str) -> int:
        """Returns the confirmation's id."""
        with self.database.write() as session:
            row = Confirmation(
                conversation_id=brief.conversation_id,
                brief_id=brief.id,
                user_id=self.agent.id,
                strength=strength,
                created_at=self._next(),
            )
            session.add(row)
        return row.id

    def _next(self) -> datetime:
        self._minute += 1
        return NOON + timedelta(minutes=self._minute)


@pytest.fixture
def support(database: Database, deliver: Callable[..., list[int]], ana: User) -> Support:
    return Support(database, deliver, ana)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small are slower on several threads, and sums on several are not the same to the last bit.

    For each test: an engine that another test makes in this process sets the number anew.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers, with a tokenizer trained on our own prompt: no download, no packaged weights."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base") / "tiny"
    special = ["<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = write_lines([make_example(1), make_example(2)]).decode()
    tokenizer.train_from_iterator([INSTRUCTIONS, RULES, lines] * 3, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0],
        eos_token=special[1],
        pad_token=special[1],
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    torch.manual_seed(1)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            initializer_range=0.2,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path, tiny_folder: Path) -> Settings:
    """Training on the tiny model: 6 steps for 4 examples, two in a pack."""
    return load_settings(
        data_dir=tmp_path / "data",
        device="cpu",
        base_model=str(tiny_folder),
        max_email_tokens=64,
        train_tokens=340,
        epochs=3,
        learning_rate=0.02,
        lora_rank=4,
        training_lease_seconds=5,
        # The emails of these tests never get a brief from a worker.
        train_floor=1,
        replay_examples=0,
    )


@pytest.fixture
def base(settings: Settings) -> BaseModel:
    return resolve_base_model(settings)
