"""The new part of a mail, without history and signature."""

import time

import pytest

from ingest.reply import new_text

NEW = "It still rattles.\n\nWhen will you send the part?"
OLD = "> We have sent it.\n> Yours, Larkspur"


@pytest.mark.parametrize(
    "intro",
    [
        "On Mon, 16 Nov 2026 at 17:20, Larkspur <support@larkspur.example> wrote:",
        "On Mon, 16 Nov 2026 at 17:20, Larkspur Support\n<support@larkspur.example> wrote:",
        "Am 16.11.2026 um 17:20 schrieb Larkspur:",
        "Am Mo., 16. Nov. 2026 um 17:20 Uhr schrieb Larkspur <support@larkspur.example>:",
        "Larkspur <support@larkspur.example> schrieb am Mo. 16. Nov. 2026 um 17:20:",
        "Le lun. 16 nov. 2026 à 17:20, Larkspur <support@larkspur.example> a écrit :",
        "El lun, 16 nov 2026 a las 17:20, Larkspur (<support@larkspur.example>) escribió:",
        "Il giorno lun 16 nov 2026 alle ore 17:20 Larkspur <support@larkspur.example> ha scritto:",
        "Op ma 16 nov 2026 om 17:20 schreef Larkspur <support@larkspur.example>:",
        "Em seg., 16 de nov. de 2026 às 17:20, Larkspur <support@larkspur.example> escreveu:",
        "Den mån 16 nov. 2026 kl 17:20 skrev Larkspur <support@larkspur.example>:",
        "pon., 16 lis 2026 o 17:20 Larkspur <support@larkspur.example> napisał(a):",
        "2026年11月16日(月) 17:20 Larkspur <support@larkspur.example>:",
        "Larkspur <support@larkspur.example> 于2026年11月16日周一 17:20写道：",
        "пн, 16 нояб. 2026 г. в 17:20, Larkspur <support@larkspur.example>:\n".replace(
            ">:", "> пишет:"
        ).strip(),
        "16.11.2026 17:20, Larkspur написал(а):",
    ],
)
def test_quoted_history_goes_with_its_introduction(intro: str) -> None:
    assert new_text(f"{NEW}\n\n{intro}\n\n{OLD}") == NEW
    assert new_text(f"{intro}\n{OLD}\n\n{NEW}") == NEW, "answered below the quote"


@pytest.mark.parametrize(
    "history",
    [
        "-----Original Message-----\nFrom: Larkspur\nWe have sent it.",
        "-----Ursprüngliche Nachricht-----\nVon: Larkspur\nSchon verschickt.",
        "From: Larkspur\nSent: Monday, 16 November 2026 17:20\nTo: Ana\nSubject: RE: Rattle\n\nWe have sent it.",
        "________________________________\nVon: Larkspur <s@l.example>\nGesendet: Montag, 16. November 2026 17:20\nAn: Ana\nBetreff: AW: x\n\nSchon verschickt.",
        "De : Larkspur\nEnvoyé : lundi 16 novembre 2026 17:20\nÀ : Ana\nObjet : RE: x\n\nDéjà envoyé.",
        "De: Larkspur\nEnviado el: lunes, 16 de noviembre de 2026 17:20\nPara: Ana\nAsunto: RE: x\n\nYa enviado.",
        "*From:* Larkspur\n*Date:* Monday, 16 November 2026\n*To:* Ana\n\nWe have sent it.",
        "发件人: Larkspur\n发送时间: 2026年11月16日 17:20\n收件人: Ana\n主题: Re: x\n\n已发送。",
        "On Mon, 16 Nov 2026 at 17:20, Larkspur <s@l.example> wrote:\n\nHello Ana,\nwe have sent it.",
    ],
)
def test_history_without_quote_marks_goes_as_well(history: str) -> None:
    assert new_text(f"{NEW}\n\n{history}") == NEW


def test_answers_between_quotes_are_kept_in_their_order() -> None:
    text = "On 16/11/2026 17:20, Larkspur wrote:\n> Colour?\nBlue.\n\n> Size?\nMedium.\n\n> Yours"
    assert new_text(text) == "Blue.\n\nMedium."


def test_a_signature_goes_and_what_only_looks_like_one_stays() -> None:
    assert new_text(f"{NEW}\n\n-- \nAna\nTel 555-0100") == NEW
    assert new_text(f"{NEW}\n\n--\nAna") == NEW
    assert new_text("Options:\n---\nA -- B") == "Options:\n---\nA -- B"
    assert new_text(f"> Where?\n\nThere.\n\n-- \nAna\n\n{OLD}") == "There."


@pytest.mark.parametrize(
    "text",
    [
        "> only\n> quoted",
        "On Mon, 16 Nov 2026 at 17:20, Larkspur wrote:\n> only quoted",
        "--\nAna",
        "",
        "   ",
        "\n\n",
    ],
)
def test_a_text_that_would_be_empty_is_left_as_it_is(text: str) -> None:
    assert new_text(text) == text


@pytest.mark.parametrize(
    "marker",
    ["---------- Forwarded message ---------", "Begin forwarded message:", "-- Weitergeleitete Nachricht --"],
)
def test_a_forwarded_mail_keeps_what_it_forwards(marker: str) -> None:
    text = f"See below.\n\n{marker}\nFrom: Parcels\nDate: today\nTo: Ana\n\nWe could not deliver.\n> really"
    assert new_text(text) == text


def test_the_subject_can_say_that_it_is_a_forward() -> None:
    text = "FYI\n\nFrom: Parcels\nSent: Monday 16 November 2026\nTo: Ana\nSubject: Parcel\n\nWe could not deliver."
    assert new_text(text, forwarded=True) == text
    assert new_text(text) == "FYI"


def test_a_forward_without_a_word_of_its_own_is_kept() -> None:
    text = "From: Parcels\nSent: Monday 16 November 2026\nTo: Ana\nSubject: Parcel\n\nWe could not deliver."
    assert new_text(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "On 5 May 2026 your colleague wrote:\n\nthat I would get it all back. I did not.",
        "From: London\nTo: Paris\n\nthat is where the parcel went.",
        "Your page says:\n\n> We answer within a day.\n\nIt has been three days now.\n\nAna",
        "I tried -----Original Message----- as a password",
    ],
)
def test_what_a_customer_writes_that_looks_like_history_is_kept(text: str) -> None:
    assert new_text(text) == text


def test_the_sentence_right_above_an_introduction_is_kept() -> None:
    intro = "On Mon, 16 Nov 2026 at 17:20, Larkspur Support\n<support@larkspur.example> wrote:"
    assert new_text(f"Thanks!\n{intro}\n{OLD}") == "Thanks!"
    assert new_text(f"Call me at 10:30.\n{intro}\n{OLD}") == "Call me at 10:30."


@pytest.mark.parametrize(
    "marker",
    [
        "##- Please type your reply above this line -##",
        "-- Bitte geben Sie Ihre Antwort über dieser Zeile ein --",
        "##- Répondre au-dessus de cette ligne -##",
        "##- Responda por encima de esta línea -##",
    ],
)
def test_what_stands_below_a_help_desks_marker_is_history(marker: str) -> None:
    assert new_text(f"It works now.\n\n{marker}\n\nYour request was updated.") == "It works now."
    below = f"{marker}\n\nYour request was updated."
    assert new_text(below) == below


def test_a_word_in_a_contact_block_that_is_no_companys_number_keeps_it() -> None:
    block = "Reed Ltd\nBTW order 4711 is late as well\nTel: +44 113 496 0000"
    text = f"Where is my parcel?\n\nRegards,\nAna\n\n{block}"
    assert new_text(text) == text
    company = block.replace("BTW order 4711 is late as well", "BTW-nr. NL001234567B01")
    assert (
        new_text(f"Where is my parcel?\n\nRegards,\nAna\n\n{company}")
        == "Where is my parcel?\n\nRegards,\nAna"
    )


def test_a_few_quoted_lines_above_the_history_are_cited_and_the_history_goes() -> None:
    log = "It prints this:\n\n> 08:14 connected\n> 08:15 failed\n\nWhat now?"
    assert new_text(f"{log}\n\nOn Mon, 16 Nov 2026 at 17:20, Larkspur <s@l.example> wrote:\n{OLD}") == log


def test_a_phones_greeting_at_the_end_goes() -> None:
    assert new_text("Yes please.\n\nSent from my iPhone") == "Yes please."


@pytest.mark.parametrize(
    "line",
    [
        "> x\n",
        "-- \n> x\n",
        "From: x\n",
        "On 2026 10:10\n",
        "wrote 2026:\n",
        "-" * 400 + "\n",
        "wrote " * 80 + ":\n",
        " " * 300 + "\n",
        "#- " * 130 + "\n",
        "--&nbsp;" * 50 + "\n",
        "x <a@b> [" + "]" * 300 + "\n",
    ],
)
def test_time_grows_with_the_length_and_no_faster(line: str) -> None:
    started = time.process_time()
    new_text("hello\n" + line * (200_000 // len(line)))
    assert time.process_time() - started < 5


def test_long_prose_around_a_quote_is_kept_whole() -> None:
    prose = "\n".join(f"Sentence number {n} of a long report about our order." for n in range(500))
    text = f"{prose}\n\nOn Mon, 5 May 2025 at 10:00, Bob\n<bob@larkspur.example> wrote:\n> old\n> words\n\n{prose}"
    assert new_text(text) == f"{prose}\n\n{prose}"


@pytest.mark.parametrize(
    "heading", ["Mensaje reenviado", "İNICIO DEL MENSAJE REENVIADO", "Пересылаемое сообщение"]
)
def test_a_forward_is_known_by_its_heading_in_any_script_and_case(heading: str) -> None:
    text = f"See below.\n\n{heading}\n> their words"
    assert new_text(text) == text


def test_two_dashes_between_two_thoughts_are_no_signature() -> None:
    text = "The lamp works now, thank you.\n--\nOne more thing: do you also repair e-bikes of other makers?"
    assert new_text(text) == text
    assert new_text("The lamp works now.\n--\nIda Noor\nLarkspur Ltd.") == "The lamp works now."
