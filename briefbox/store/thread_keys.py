"""What is compared to tell whether two mails belong together: ids and subjects, folded. Text in, text out.

Servers and clients on the way rewrite both: they change case, fold long lines, put another host into a Message-ID,
and put "Re:" in their own language before a subject.
"""

import re
import unicodedata

# A local part so long and so mixed that nobody has it by chance: the host behind it tells nothing more.
MIN_LOCAL = 16
_MIN_DISTINCT, _MIN_LETTERS, _MIN_DIGITS = 10, 4, 2

# Letters and digits that a subject must have beyond words that stand in every third mail.
_MIN_WEIGHT = 4

_REPLY_WORDS = (
    "re|aw|antw|antwort|sv|svar|vs|vá|rif|res|resp|rép|r|odp|odpowiedź|ynt|yanıt|απ|σχετ|atb|bls|"
    "отв|ответ|відп|回复|回覆|答复|答覆|返信|회신|답장|رد|השב|תגובה|ตอบ|trả lời|balas"
)
_FORWARD_WORDS = (
    "fw|fwd|wg|weitergeleitet|tr|rv|renv|enc|encaminhado|i|inoltro|doorst|pd|vl|ilt|i̇lt|πρθ|továbbítás|"
    "пересл|перенапр|转发|轉寄|轉發|転送|전달|إعادة توجيه|הועבר|ส่งต่อ|chuyển tiếp|terusan"
)
_AUTO_WORDS = (
    "auto(?:matic)?[- ]?(?:reply|response)|automatische (?:antwort|reply)|réponse automatique|respuesta automática|"
    "risposta automatica|automatisch antwoord|resposta automática|autosvar|automaattinen vastaus|"
    "out of (?:the )?office|undeliver(?:ed|able)(?: mail)?|自動応答|自动答复|自动回复|автоответ"
)
_COUNT = r"(?:\s*[\[(^]\s*\d{1,3}\s*[\])]?|\s*\d{1,2})?"
_REPLY = re.compile(rf"(?:{_REPLY_WORDS}){_COUNT}\s*[:：]\s*", re.IGNORECASE)
_PREFIX = re.compile(rf"(?:{_REPLY_WORDS}|{_FORWARD_WORDS}|{_AUTO_WORDS}){_COUNT}\s*[:：]\s*", re.IGNORECASE)
# "[support]", "[EXTERNAL]": a list's or a filter's. With a digit in it, it may be what the mail is about.
_TAG = re.compile(r"[\[【]\s*[^\]】\d]{1,60}[\]】]\s*")
_TICKET = re.compile(
    r"[\[(]\s*(?:[\w .-]{0,30}#\s*[\w-]{1,30}|(?:ticket|case|request|anfrage|vorgang|ref)\s*[:#]?\s*[\w:.-]{0,40}\d[\w:.-]{0,40})\s*[\])]",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_COMMON = """
a about again aiuto ajuda an and anfrage another any asap ayuda bestelling bestellung betreff bitte bonjour
bonsoir buongiorno by can commande consulta contact contacto das dear demande der die domanda duvida dúvida
ein eine email en enquiry factura facture factuur faktura fattura feedback for frage fragen from fråga
gracias guten hallo have hej hello help hey hi hilfe hjelp hjälp hola hulp i im important in info
information inquiry invoice is it kein kontakt la le les mail me message my nachricht need neue new news no
none of ohne ola olá on one order orders ordine ordre our para pedido please pls pomoc por pregunta problem
problems pytanie question questions rechnung regarding request salve sans service sin spørgsmål subject
support tag test thank thanks the this to un una une untitled update urgent von vraag we with you your
zamówienie zu zur вопрос заказ здравствуйте контакт помощь привет お問い合わせ 咨询 注文 订单 質問 问题
"""
_SAYS_NOTHING = frozenset(_COMMON.split())


def id_key(message_id: str) -> str:
    """A Message-ID as it is compared: no white space, no brackets, no case, and no host behind an unguessable local part.

    "" for an id that says nothing.
    """
    if not message_id:
        return ""
    bare = "".join(message_id.split()).strip("<>").lower()
    local, at, _host = bare.rpartition("@")
    local = local if at else bare
    return f"{local}@" if _is_unguessable(local) else bare


def _is_unguessable(local: str) -> bool:
    """Digits alone are a clock or a counter, words alone a template: neither belongs to one mail only."""
    return (
        len(local) >= MIN_LOCAL
        and sum(map(str.isalpha, local)) >= _MIN_LETTERS
        and sum(map(str.isdigit, local)) >= _MIN_DIGITS
        and len(set(local)) >= _MIN_DISTINCT
    )


def subject_key(subject: str) -> str:
    """A subject as it is compared: without "Re:" and its like in any order and number, list tags, ticket numbers, case."""
    rest = " ".join(unicodedata.normalize("NFKC", subject).split())
    rest = _TICKET.sub(" ", rest).strip()
    while found := _PREFIX.match(rest) or _TAG.match(rest):
        rest = rest[found.end() :]
    return " ".join(rest.casefold().split())[:500]


def is_reply(subject: str) -> bool:
    """Whether it begins like an answer ("Re:", "AW:"), not like a forward, whatever tags stand before that."""
    rest = " ".join(unicodedata.normalize("NFKC", subject).split())
    while found := _TAG.match(rest) or _TICKET.match(rest):
        rest = rest[found.end() :].lstrip()
    return _REPLY.match(rest) is not None


def says_enough(key: str) -> bool:
    """Whether a folded subject tells one matter from another; "hello" and "question about my order" do not."""
    return sum(_weight(word) for word in _WORD.findall(key) if word not in _SAYS_NOTHING) >= _MIN_WEIGHT


def num_words(key: str) -> int:
    """Words of a folded subject; scripts without spaces count two characters as a word."""
    return len(_WORD.findall(key)) + len(_CJK.findall(key)) // 2


def _weight(word: str) -> int:
    return len(word) + len(_CJK.findall(word))
