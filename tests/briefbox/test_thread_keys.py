"""Folding of ids and subjects: what is one and what is not, and in how much time."""

import time

import pytest

from briefbox.store.thread_keys import id_key, is_reply, num_words, says_enough, subject_key

UUID = "8B9A6C1D-23E4-4F5A-9C1B-0A2B3C4D5E6F"


@pytest.mark.parametrize(
    "written",
    [
        f"{UUID}@mail.host",
        f"<{UUID.lower()}@host>",
        f" <{UUID}@Host.Local>\r\n",
        UUID,
        f"{UUID[:20]}\t{UUID[20:]}@x",
    ],
)
def test_a_long_mixed_local_part_is_known_behind_any_host(written: str) -> None:
    assert id_key(written) == id_key(f"{UUID}@host")


@pytest.mark.parametrize(
    "local",
    [
        "1",
        "mail-1",
        "20261123100000.12345678",
        "automatic-confirmation",
        "aaaaaaaaaaaaaaaaaa11",
        "order-confirm-1",
    ],
)
def test_any_other_id_needs_its_host(local: str) -> None:
    assert id_key(f"{local}@one.example") != id_key(f"{local}@two.example")
    assert id_key(f"<{local.upper()}@ONE.example>") == id_key(f"{local}@one.example")


@pytest.mark.parametrize("nothing", ["", "<>", " < > ", "\n"])
def test_an_empty_id_is_no_key(nothing: str) -> None:
    assert id_key(nothing) == ""


@pytest.mark.parametrize(
    "subject",
    [
        "Re: Broken lamp",
        "RE : broken  LAMP",
        "Re[3]: Broken lamp",
        "AW (2): WG: Broken lamp",
        "[support] Re: [EXTERNAL] Broken lamp",
        "Re: [Ticket#2026112310] Broken lamp",
        "Broken lamp [#4711]",
        "Broken lamp (ref:_00D20.123:ref)",
        "Sv: Vs: VS: Antw: Odp: Rif: RES: Ynt: Απ: Отв: Broken lamp",
        "回复：Broken lamp",
        "转发: 答复: Broken lamp",
        "Re: R: I: Broken lamp",
        "Automatic reply: Broken lamp",
        "\u200fBroken lamp".replace("\u200f", " "),
    ],
)
def test_subjects_of_one_matter_are_one(subject: str) -> None:
    assert subject_key(subject) == "broken lamp"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[Order 1001] late", "[Order 1002] late"),
        ("Order 1001", "Order 1002"),
        ("Refund: lamp", "Invoice: lamp"),
        ("Broken lamp", "Broken lamps"),
        ("Regarding the lamp", "the lamp"),
    ],
)
def test_subjects_of_two_matters_stay_two(one: str, other: str) -> None:
    assert subject_key(one) != subject_key(other)


@pytest.mark.parametrize("subject", ["", "Re:", "Re: AW:", "[support]", " \n "])
def test_a_subject_of_prefixes_alone_says_nothing(subject: str) -> None:
    assert subject_key(subject) == ""
    assert not says_enough(subject_key(subject))


@pytest.mark.parametrize(
    ("subject", "answers"),
    [
        ("Re: x", True),
        ("[support] AW: x", True),
        ("[#12] SV: x", True),
        ("返信: x", True),
        ("Fwd: Re: x", False),
        ("WG: x", False),
        ("x", False),
        ("Reason: x", False),
    ],
)
def test_an_answer_is_told_from_a_forward(subject: str, answers: bool) -> None:
    assert is_reply(subject) is answers


@pytest.mark.parametrize(
    ("key", "enough"),
    [
        ("hello", False),
        ("question about my order", False),
        ("urgent help please", False),
        ("order 1001", True),
        ("broken lamp", True),
        ("退款申请", True),
        ("咨询", False),
        ("a b c", False),
    ],
)
def test_which_subjects_say_enough(key: str, enough: bool) -> None:
    assert says_enough(key) is enough


def test_words_are_counted_in_scripts_without_spaces_too() -> None:
    assert num_words("the lamp is broken") == 4
    assert num_words("我的订单还没有到") >= 4


@pytest.mark.parametrize(
    "piece", ["[", "[#", "Re: ", "[a] ", "(ticket ", "re[", "【", "1", "：", "[ticket 1:"]
)
def test_a_hostile_subject_takes_no_time(piece: str) -> None:
    started = time.process_time()
    for fold in (subject_key, is_reply):
        fold(piece * (1000 // len(piece)))
    assert time.process_time() - started < 0.5
