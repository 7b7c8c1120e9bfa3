"""briefbox/language.py: right on short support mails, silent where nobody could tell."""

import subprocess
import sys

import pytest

from briefbox.language import NAMES, detect, english_name

MAILS = {
    "en": ("My parcel 4711 is late. Where is it?", "Cannot log in, the password reset does not work."),
    "de": ("Mein Paket ist nicht angekommen.", "Bitte stornieren Sie meine Bestellung 4711."),
    "fr": ("Bonjour, je n'ai pas reçu mon colis.", "Merci d'annuler ma commande."),
    "es": ("Hola, no puedo entrar en mi cuenta.", "Quiero un reembolso del pedido 123."),
    "it": ("Buongiorno, non ho ricevuto il pacco.", "Vorrei un rimborso per l'ordine."),
    "nl": ("Mijn pakket is niet aangekomen.", "Graag wil ik mijn bestelling annuleren."),
    "pt": ("Não recebi a minha encomenda.", "Quero cancelar a assinatura, por favor."),
    "pl": ("Nie otrzymałem paczki.", "Proszę o zwrot pieniędzy za zamówienie."),
    "sv": ("Jag har inte fått mitt paket.", "Vänligen avbryt min beställning."),
    "ja": ("荷物が届きません。", "注文をキャンセルしたいです。"),
    "zh": ("我没有收到包裹", "请取消我的订单"),
    "ru": ("Я не получил посылку.", "Прошу отменить заказ."),
    "ar": ("لم يصل الطرد الخاص بي",),
    "tr": ("Paketim gelmedi, nerede?", "Siparişimi iptal etmek istiyorum."),
}


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in MAILS.items() for text in texts])
def test_short_mails_in_many_languages(code: str, text: str) -> None:
    assert detect(text) == code


@pytest.mark.parametrize("text", ["", "   ", "4711", "ok", "#48213 !!", "🙂🙂🙂", "OK thx"])
def test_what_nobody_could_tell_is_not_guessed(text: str) -> None:
    assert detect(text) == ""


def test_a_huge_text_is_not_read_whole() -> None:
    assert detect("Where is my parcel? " * 50_000) == "en"


def test_where_the_beginning_leaves_it_open_the_rest_decides() -> None:
    models = (
        "HP LaserJet 4050, Brother MFC-L2710DW, Canon PIXMA TS5350, Epson EcoTank ET-2850, Lexmark B2236dw. "
    )
    assert detect(models + "Welcher von diesen Druckern wird noch repariert, und was kostet es?") == "de"
    assert (
        detect(models + "Laquelle de ces imprimantes réparez-vous encore, et combien cela coûte-t-il ?")
        == "fr"
    )


def test_every_code_has_a_name_and_others_have_none() -> None:
    assert english_name("de") == "German"
    assert english_name("xx") == ""
    assert all(len(code) == 2 and name.istitle() for code, name in NAMES.items())


def test_the_models_table_is_loaded_with_the_first_text_and_not_before() -> None:
    program = (
        "import sys; from ingest.parse import parse_email; from briefbox import language\n"
        "before = 'py3langid' in sys.modules\n"
        "parse_email(b'From: a@b\\n\\nWo bleibt mein Paket? Ich warte schon lange.')\n"
        "print(before, 'py3langid' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=True, text=True
    )
    assert done.stdout.split() == ["False", "True", "False"]
