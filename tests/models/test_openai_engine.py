import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import pytest

from briefbox.errors import AdapterError, ModelError, ServerAwayError
from briefbox.schemas import AdapterCard, Omission
from briefbox.settings import load_settings
from models.engine import Engine, make_engine
from models.openai_client import TooLongError
from models.openai_engine import OpenAIEngine
from models.prompt import PROMPT_VERSION
from models.registry import WEIGHTS_FILE, write_card
from tests.models.conftest import make_request
from tests.models.openai_server import BRIEF, Asked, OpenAIServer, Reply, brief, completion, error, tokens


def engine_for(server: OpenAIServer, **changes: Any) -> OpenAIEngine:
    """An engine on this server, which gives up soon."""
    values = {"engine": "openai", "openai_url": server.url, "openai_timeout_seconds": 5} | changes
    return OpenAIEngine(load_settings(**values))


def test_the_setting_chooses_it() -> None:
    with OpenAIServer() as server:
        engine: Engine = make_engine(load_settings(engine="openai", openai_url=server.url))
        assert engine.name == "openai"
        assert server.asked == []


def test_an_email_becomes_a_brief_with_its_provenance() -> None:
    usage = {
        "prompt_tokens": 300,
        "completion_tokens": 40,
        "prompt_tokens_details": {"cached_tokens": 200},
    }
    reply = completion(json.dumps(BRIEF), usage=usage)
    with OpenAIServer([reply]) as server:
        engine = engine_for(server)
        (made,) = engine.brief([make_request()])
    assert made.headline == "Late parcel"
    assert made.summary == "Parcel 4711 is late."
    assert (made.priority.label, made.category.label) == ("high", "Delivery")
    assert (made.priority.confidence, made.priority.scores) == (None, {})
    of = made.provenance
    assert (of.engine, of.base_model, of.base_revision, of.adapter) == ("openai", "tiny", "", "")
    assert (of.tokens_in, of.tokens_cached, of.tokens_out) == (300, 200, 40)
    assert (of.batch_size, of.device) == (1, server.url.split("/")[2])
    assert of.seconds > 0
    assert of.prefill_seconds == of.decode_seconds == 0
    assert of.prompt_version == f"{PROMPT_VERSION}-json"


def test_what_is_asked_for() -> None:
    with OpenAIServer() as server:
        engine_for(server, openai_api_key="sk-1").brief([make_request()])
        body = server.chats[0].body
    assert body["model"] == "tiny"
    assert body["temperature"] == 0
    assert 100 < body["max_tokens"] < 300
    assert (body["logprobs"], body["top_logprobs"]) == (True, 20)
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["strict"] is True
    made = body["response_format"]["json_schema"]["schema"]["properties"]
    assert made["category"]["enum"] == ["Billing", "Billing dispute", "Delivery"]
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "My parcel 4711 is late." in body["messages"][1]["content"]


def test_no_key_no_authorization() -> None:
    with OpenAIServer() as server:
        engine_for(server).brief([make_request()])
        assert "authorization" not in server.chats[0].headers


def test_confidence_comes_from_logprobs() -> None:
    logprobs = tokens(
        '{"priority": "',
        ("high", 0.6, {"low": 0.2, "urgent": 0.2}),
        '", "category": "',
        ("Delivery", 0.9, {"Billing": 0.1}),
        '", "headline": "Late parcel", "summary": "Parcel 4711 is late."}',
    )
    content = "".join(entry["token"] for entry in logprobs["content"])
    with OpenAIServer([completion(content, logprobs=logprobs)]) as server:
        (made,) = engine_for(server).brief([make_request()])
    assert made.priority.confidence == pytest.approx(0.6)
    assert made.category.scores["Delivery"] == pytest.approx(0.9)
    assert sum(made.category.scores.values()) == pytest.approx(1)


def test_times_of_llama_cpp_are_shared_out() -> None:
    timings = {"prompt_ms": 300.0, "predicted_ms": 100.0, "cache_n": 7}
    with OpenAIServer([completion(json.dumps(BRIEF), timings=timings)]) as server:
        (made,) = engine_for(server).brief([make_request()])
    of = made.provenance
    assert of.prefill_seconds == pytest.approx(of.seconds * 0.75)
    assert of.decode_seconds == pytest.approx(of.seconds * 0.25)
    assert of.tokens_cached == 7


@pytest.mark.parametrize("usage", [None, "many", {"prompt_tokens": -5, "completion_tokens": None}])
def test_senseless_usage_counts_as_none(usage: Any) -> None:
    reply = completion(json.dumps(BRIEF))
    reply.body["usage"] = usage
    with OpenAIServer([reply]) as server:
        (made,) = engine_for(server).brief([make_request()])
    assert (made.provenance.tokens_in, made.provenance.tokens_out) == (0, 0)


# --- a batch


def test_a_batch_keeps_its_order_and_asks_so_many_at_once() -> None:
    def answer(asked: Asked) -> Reply:
        number = asked.user.split("Subject: Email ")[1].split("\n")[0]
        text = json.dumps(BRIEF | {"headline": f"Parcel {number}", "summary": "It is late."})
        return Reply(completion(text).body, delay=0.02 * (9 - int(number)))

    requests = [make_request(f"Parcel {n} is late.", subject=f"Email {n}") for n in range(9)]
    with OpenAIServer(answer) as server:
        made = engine_for(server, openai_parallel=3).brief(requests)
        assert server.most_at_once == 3
    assert [m.headline for m in made] == [f"Parcel {n}" for n in range(9)]
    assert all(m.provenance.batch_size == 9 for m in made)


def test_no_emails_no_requests() -> None:
    with OpenAIServer() as server:
        assert engine_for(server, openai_model="tiny").brief([]) == []
        assert server.asked == []


def test_one_customers_text_is_in_one_prompt_only() -> None:
    with OpenAIServer() as server:
        engine_for(server).brief([make_request("from Ana 4711"), make_request("from Bo 4711")])
        assert sorted(("Ana" in a.user, "Bo" in a.user) for a in server.chats) == [
            (False, True),
            (True, False),
        ]


def test_one_bad_email_does_not_cost_the_others_twice() -> None:
    def answer(asked: Asked) -> Reply:
        return completion("no") if "bad" in asked.user else brief()

    good, bad = [make_request(f"Parcel 4711, email {n}") for n in range(3)], make_request("bad")
    with OpenAIServer(answer) as server:
        engine = engine_for(server)
        with pytest.raises(ModelError, match="wrote no usable brief"):
            engine.brief([*good, bad])
        num_asked = len(server.chats)
        assert [engine.brief([request])[0].headline for request in good] == ["Late parcel"] * 3
        assert len(server.chats) == num_asked
        engine.brief(good[:1])
        assert len(server.chats) == num_asked + 1


def test_a_server_that_goes_away_is_not_asked_for_the_rest() -> None:
    with OpenAIServer([error(503, "busy")]) as server:
        engine = engine_for(server, openai_parallel=1, openai_timeout_seconds=0.3)
        with pytest.raises(ServerAwayError):
            engine.brief([make_request(f"Email {n}") for n in range(5)])
        assert {a.user for a in server.chats} == {server.chats[0].user}


# --- labels


@pytest.mark.parametrize("wrong", [{"priority": "very high"}, {"category": "Sales"}, {"category": ""}])
def test_a_label_that_is_not_allowed_is_asked_for_again_and_never_used(wrong: dict[str, str]) -> None:
    with OpenAIServer([brief(**wrong)]) as server:
        with pytest.raises(ModelError, match=r"is none of the allowed labels\).*keeps to a JSON schema"):
            engine_for(server).brief([make_request()])
        first, second = server.chats
    assert "category is one of: Billing; Billing dispute; Delivery." in second.user
    assert second.body["max_tokens"] == 2 * first.body["max_tokens"]
    with OpenAIServer([brief(**wrong), brief()]) as server:
        (made,) = engine_for(server).brief([make_request()])
    assert made.priority.label == "high"
    assert made.provenance.tokens_in == 200  # both were paid for


def test_text_around_the_json_does_no_harm() -> None:
    with OpenAIServer([completion(f"Sure!\n```json\n{json.dumps(BRIEF)}\n```")]) as server:
        assert engine_for(server).brief([make_request()])[0].headline == "Late parcel"


def test_an_answer_that_was_cut_off_in_its_summary_is_used() -> None:
    content = json.dumps(BRIEF).removesuffix('"}') + " The customer wants"
    with OpenAIServer([completion(content, finish_reason="length")]) as server:
        (made,) = engine_for(server).brief([make_request()])
    assert made.summary.startswith("Parcel 4711 is late.")
    assert len(server.chats) == 1


def test_an_answer_that_was_cut_off_before_its_labels_is_asked_for_again() -> None:
    with OpenAIServer([completion('{"prio', finish_reason="length")]) as server:
        with pytest.raises(ModelError, match="ran into the token limit"):
            engine_for(server).brief([make_request()])
        assert len(server.chats) == 2


def test_a_model_that_only_thinks_is_said_to_think() -> None:
    with (
        OpenAIServer([completion(None, finish_reason="length")]) as server,
        pytest.raises(ModelError, match="needs its thinking turned off"),
    ):
        engine_for(server).brief([make_request()])


# --- what a server does not take


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        (('"json_schema"',), {"type": "json_object", "schema": ...}),
        (('"json_schema"', '"schema"'), {"type": "json_object"}),
        (('"response_format"',), None),
    ],
)
def test_an_unknown_response_format_is_asked_for_no_more(refused: tuple[str, ...], left: Any) -> None:
    def answer(asked: Asked) -> Reply:
        text = json.dumps(asked.body.get("response_format", {}))
        whole = '"response_format"' in refused and "response_format" in asked.body
        if whole or any(name in text for name in refused):
            return error(400, "response_format is not supported in this form")
        return brief()

    with OpenAIServer(answer) as server:
        engine = engine_for(server)
        engine.brief([make_request()])
        num_first = len(server.chats)
        engine.brief([make_request("My parcel 4711, again.")])
        assert len(server.chats) == num_first + 1
        found = server.chats[-1].body.get("response_format")
    if left is None:
        assert found is None
    else:
        assert found.keys() == left.keys()
        assert found["type"] == "json_object"


def test_the_refusal_of_llama_cpp_python_is_understood() -> None:
    said = "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'input': 'json_schema'}"
    with OpenAIServer([error(500, said, type="internal_server_error", param=None), brief()]) as server:
        engine_for(server).brief([make_request()])
        assert server.chats[1].body["response_format"]["type"] == "json_object"
        assert "enum" in json.dumps(server.chats[1].body["response_format"])


def test_fewer_logprobs_and_then_none_are_asked_for() -> None:
    def answer(asked: Asked) -> Reply:
        if "top_logprobs" in asked.body:
            return error(400, "top_logprobs is too large", param="top_logprobs")
        return brief()

    with OpenAIServer(answer) as server:
        engine = engine_for(server)
        (made,) = engine.brief([make_request()])
        assert [a.body.get("top_logprobs") for a in server.chats] == [20, 5, None]
        assert "logprobs" not in server.chats[-1].body
        assert server.chats[-1].body["response_format"]["type"] == "json_schema"
    assert made.priority.confidence is None


def test_logprobs_that_a_key_may_not_have_are_no_refused_key() -> None:
    said = "You are not allowed to request logprobs from this model"
    with OpenAIServer([error(403, said), error(403, said), brief()]) as server:
        assert engine_for(server).brief([make_request()])[0].priority.confidence is None


def test_other_parameters_are_given_up_by_name() -> None:
    script = [
        error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
        error(400, "Unsupported value: 'temperature' does not support 0 with this model."),
        error(400, "System role not supported"),
        brief(),
    ]
    with OpenAIServer(script) as server:
        engine_for(server).brief([make_request()])
        body = server.chats[-1].body
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] > 0
    assert "temperature" not in body
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert "Category is one of these" in body["messages"][0]["content"]
    assert "response_format" in body


def test_many_threads_hear_a_refusal_as_one() -> None:
    lock, num = Lock(), [0]

    def answer(asked: Asked) -> Reply:
        with lock:
            num[0] += 1
        if asked.body.get("response_format", {}).get("type") == "json_schema":
            return Reply(error(400, "unknown response_format").body, 400, delay=0.1)
        return brief()

    with OpenAIServer(answer) as server:
        engine = engine_for(server, openai_parallel=6)
        engine.brief([make_request(f"Parcel 4711, email {n}") for n in range(6)])
        assert engine.abilities.format == 1
        assert num[0] == 12


def test_a_server_that_refuses_everything_ends_in_one_sentence() -> None:
    with OpenAIServer([error(400, "bad response_format, as always")]) as server:
        with pytest.raises(ModelError, match="bad response_format"):
            engine_for(server).brief([make_request()])
        assert len(server.chats) == 4


# --- too long


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [
        (400, "This model's maximum context length is 2048 tokens. However, you requested 3151.", "x"),
        (400, "request (9412 tokens) exceeds the available context size (8192 tokens)", "x"),
        (400, "Too long.", "context_length_exceeded"),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.", "x"),
    ],
)
def test_an_email_that_is_too_long_is_cut_harder_once_and_says_so(status: int, said: str, code: str) -> None:
    request = make_request("Parcel 4711. " + "word " * 1000)
    with OpenAIServer([error(status, said, code=code), brief()]) as server:
        engine = engine_for(server)
        (made,) = engine.brief([request])
        first, second = (len(asked.user) for asked in server.chats)
    assert second < first - 1500
    assert made.cut
    assert made.omitted == (Omission(part="newest", emails=1, tokens=made.omitted[0].tokens),)
    assert made.omitted[0].tokens > 900


def test_an_email_that_stays_too_long_names_the_setting() -> None:
    with OpenAIServer([error(400, "maximum context length is 128 tokens")]) as server:
        with pytest.raises(TooLongError, match="lower BRIEFBOX_MAX_EMAIL_TOKENS"):
            engine_for(server).brief([make_request("word " * 1000)])
        assert len(server.chats) == 2


# --- facts


def test_invented_facts_are_forbidden_once_and_the_better_answer_is_kept() -> None:
    with OpenAIServer([brief(summary="Parcel 4711 costs 999 euros."), brief()]) as server:
        (made,) = engine_for(server).brief([make_request()])
        assert "999" not in server.chats[0].user
        assert "Do not write any of these, because the email does not say them:" in server.chats[1].user
        assert "999" in server.chats[1].user
        assert "4711" not in server.chats[1].user.split("Do not write")[1]
    assert made.summary == "Parcel 4711 is late."
    assert made.grounding.removed == ()
    assert made.provenance.tokens_out == 40


def test_facts_that_are_invented_again_are_dropped() -> None:
    with OpenAIServer([brief(summary="Parcel 4711 is late. It costs 999 euros.")]) as server:
        (made,) = engine_for(server).brief([make_request()])
        assert len(server.chats) == 2
    assert any("999" in fact for fact in made.grounding.removed)


def test_a_second_try_that_fails_leaves_the_first_answer() -> None:
    with OpenAIServer([brief(summary="Parcel 4711 costs 999 euros."), completion("no")]) as server:
        (made,) = engine_for(server).brief([make_request()])
    assert made.headline == "Late parcel"


# --- models and adapters


def test_the_first_model_that_is_no_adapter_is_asked() -> None:
    listed = ({"id": "lora", "parent": "base"}, {"id": "base", "parent": None}, "other")
    with OpenAIServer(models=listed) as server:
        engine = engine_for(server)
        assert engine.base_model == ""
        engine.warm_up()
        assert engine.base_model == "base"


def test_the_model_of_the_setting_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    with OpenAIServer(models=("a", "b")) as server:
        engine = engine_for(server, openai_model="b")
        engine.warm_up()
        engine.brief([make_request()])
        assert server.chats[0].body["model"] == "b"
        assert not caplog.text
        engine_for(server, openai_model="c").warm_up()
        assert "does not list the model c, only a, b" in caplog.text


@pytest.mark.parametrize("models", [(), Reply({"data": None}), Reply({"object": "list"})])
def test_a_server_without_models_is_refused(models: Any) -> None:
    with OpenAIServer(models=models) as server, pytest.raises(ModelError, match="lists no models"):
        engine_for(server).warm_up()


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter's folder; its weights are only summed here."""
    folder = tmp_path / "billing-7"
    folder.mkdir()
    (folder / WEIGHTS_FILE).write_bytes(b"weights")
    card = AdapterCard(
        name="billing-7",
        base_model="tiny",
        base_sha256="0" * 64,
        weights_sha256=sha256(b"weights").hexdigest(),
        prompt_version=PROMPT_VERSION,
        dataset="d",
        dataset_hash="h",
        num_examples=1,
        temperatures={"priority": 2.0},
        created_at=datetime(2026, 11, 23, tzinfo=UTC),
    )
    write_card(folder, card)
    return folder


LINES = "Priority: high\nCategory: Delivery\nHeadline: Late parcel\nSummary: Parcel 4711 is late."


def test_an_adapter_is_asked_by_its_name_in_the_form_of_its_training(adapter: Path) -> None:
    logprobs = tokens("Priority:", (" high", 0.8, {" low": 0.2}), LINES.removeprefix("Priority: high"))
    with OpenAIServer([completion(LINES, logprobs=logprobs)], models=("tiny", "billing-7")) as server:
        engine = engine_for(server)
        assert engine.load_adapter(adapter) == "billing-7"
        assert engine.adapters == ("billing-7",)
        (made,) = engine.brief([make_request()], "billing-7")
        body = server.chats[0].body
    assert body["model"] == "billing-7"
    assert "response_format" not in body
    assert "JSON" not in body["messages"][0]["content"]
    assert made.headline == "Late parcel"
    assert (made.provenance.adapter, made.provenance.base_model) == ("billing-7", "tiny")
    assert made.provenance.prompt_version == PROMPT_VERSION
    # The card's temperature of 2 makes it less sure.
    assert made.priority.confidence == pytest.approx(0.8**0.5 / (0.8**0.5 + 0.2**0.5), abs=1e-6)


def test_an_adapter_that_forgets_its_form_is_held_to_the_schema(adapter: Path) -> None:
    with OpenAIServer([completion("Hello!"), brief()], models=("tiny", "billing-7")) as server:
        engine = engine_for(server)
        engine.load_adapter(adapter)
        (made,) = engine.brief([make_request()], "billing-7")
        assert server.chats[1].body["response_format"]["type"] == "json_schema"
    assert made.provenance.prompt_version == f"{PROMPT_VERSION}-json"


def test_an_adapter_that_the_server_does_not_list_is_refused_with_the_command(adapter: Path) -> None:
    with OpenAIServer() as server:
        engine = engine_for(server)
        with pytest.raises(AdapterError, match=f"--enable-lora --lora-modules billing-7={adapter}$"):
            engine.load_adapter(adapter)
        assert engine.adapters == ()
        with pytest.raises(AdapterError, match="not resident, expected one of: none"):
            engine.brief([make_request()], "billing-7")


def test_altered_weights_are_refused(adapter: Path) -> None:
    with OpenAIServer(models=("tiny", "billing-7", "other")) as server:
        engine = engine_for(server)
        with pytest.raises(AdapterError, match="the database says ffffffffffff"):
            engine.load_adapter(adapter, "other", "f" * 64)
        (adapter / WEIGHTS_FILE).write_bytes(b"altered")
        with pytest.raises(AdapterError, match="but its card says"):
            engine.load_adapter(adapter)
        (adapter / WEIGHTS_FILE).unlink()
        with pytest.raises(AdapterError, match="cannot be read"):
            engine.load_adapter(adapter)


def test_an_adapter_of_another_prompt_is_refused(adapter: Path) -> None:
    card = AdapterCard.model_validate_json((adapter / "card.json").read_text())
    write_card(adapter, card.model_copy(update={"prompt_version": "brief-0"}))
    with (
        OpenAIServer(models=("tiny", "billing-7")) as server,
        pytest.raises(AdapterError, match="trained with prompt brief-0"),
    ):
        engine_for(server).load_adapter(adapter)


def test_an_adapter_is_not_to_blame_for_a_server_that_is_away(adapter: Path) -> None:
    with OpenAIServer(models=error(503, "busy")) as server, pytest.raises(ServerAwayError):
        engine_for(server, openai_timeout_seconds=0.3).load_adapter(adapter)


def test_a_dropped_adapter_is_asked_for_no_more(adapter: Path) -> None:
    with OpenAIServer(models=("tiny", "mine")) as server:
        engine = engine_for(server)
        assert engine.load_adapter(adapter, "mine") == "mine"
        engine.drop_adapter("mine")
        engine.drop_adapter("mine")
        assert engine.adapters == ()
