"""How mail programs announce what is not new: "On ... wrote:", "From: Sent: To:", "Forwarded message".

Tables by language and the questions asked of them, each of a bounded number of lines and letters.
"""

import re
from itertools import product

# A header of quoted history is short; longer lines are prose.
LONGEST = 500
# Mail programs break "On ... wrote:" into at most this many lines.
_INTRO_LINES = 4
# A block of From, Sent, To, Cc and Subject, long lists of recipients broken.
_BLOCK_LINES = 10

QUOTED = re.compile(r"^ {0,3}>")
RULE = re.compile(r"^\s*[_\-*=＊―━─]{5,}\s*$")

_WROTE = re.compile(
    # "I wrote to you on Monday and got this:" is no introduction: the English verb ends one, but for a date.
    r"(?<!\w)((?:wrote|writes)(?=.{0,16}$|(?: on| at) .{0,40}\d\d\W{0,3}(?:[ap]m)?\W*$)|schrieb|schreibt|hat geschrieben|a [ée]crit|[ée]crit|escribi[óo]|escrib[ií]a|ha scritto|scrisse|"
    r"schreef|geschreven|escreveu|skrev|skrifade|napisał(?:\(?a\)?)?|pisze|napisana przez|kirjoitti|"
    r"napsal(?:\(?a\)?)?|írta|a scris|έγραψε|yazdı|đã viết|"
    r"пишет|писал(?:\(?а\)?)?|написал(?:\(?а\)?)?|пише|написав)(?!\w)|書きました|のメール|写道|寫道|작성",
    re.IGNORECASE,
)
_JAPANESE_INTRO = re.compile(r"^\s*\d{4}年\d{1,2}月\d{1,2}日.*[@＠].*[:：]$")
_DATE_OR_TIME = re.compile(r"\d{1,2}[:.]\d{2}|\b(19|20)\d\d\b|\d{1,2}[./-]\d{1,2}[./-]\d{2}")
# With a quote below it, an introduction of a mail program names the year, or an address: people say "on Monday at 8:15".
_DATE = re.compile(r"\b(19|20)\d\d\b|\d{1,2}[./-]\d{1,2}[./-]\d{2}|\d{4}年")
_CLOCK_OR_ADDRESS = re.compile(r"\d{1,2}:\d{2}|@")
# "name <address>:", in whatever language the words before it are.
_ADDRESS = re.compile(r"<[^\s<>]{1,200}@[^\s<>]{1,200}>")
_ADDRESS_LAST = re.compile(r"[<(（]\s?[^\s<>()]{1,200}@[^\s<>()]{1,200}\s?[>)）]\S{0,12}\s*[:：]$")
_DASHED = re.compile(r"^\s*-{2,}[^-].*[^-]-{2,}\s*$")
_LEAD = re.compile(
    r"^\W*(on|am|le|el|il|op|em|no dia|den|dne|dnia|w dniu|vào|at|在)(?:\b|(?<=在)).*\d", re.IGNORECASE
)

_HISTORY_WORDS = (
    "original message|original email|original appointment|reply message|"
    "urspr[üu]ngliche (?:nachricht|mail|e-mail)|originalnachricht|"
    "message d['’]origine|message original|mensaje original|messaggio originale|oorspronkelijk bericht|"
    "origineel bericht|mensagem original|originalmeddelande|ursprungligt meddelande|oprindelig meddelelse|"
    "oprindelig besked|opprinnelig melding|alkuperäinen viesti|wiadomo[śs][ćc] oryginalna|oryginalna wiadomo[śs][ćc]|"
    "původní zpráva|eredeti üzenet|orijinal ileti|mesaj original|исходное сообщение|оригинальное сообщение|"
    "元のメッセージ|original ?メッセージ|原始邮件|原始郵件|回复的原邮件|원본 메시지"
)
# Help-desks write it above the history; QQ writes "&nbsp;" into plain text.
_REPLY_ABOVE = (
    "(?:please )?(?:type your reply|reply|write) above this line|(?:bitte )?(?:geben sie ihre |schreiben sie ihre )?antwort(?:en sie)? "
    "(?:bitte )?(?:über|oberhalb) dieser (?:zeile|linie)(?: ein)?|(?:veuillez )?(?:répondre|écrire|saisir votre réponse) au-dessus de cette ligne|"
    "(?:por favor,? )?(?:responda|escriba(?: su respuesta)?) (?:por )?encima de esta línea|"
    "(?:si prega di )?(?:rispondere|digitare la risposta) sopra questa (?:riga|linea)|(?:typ|schrijf)? ?(?:uw|je) antwoord boven deze (?:regel|lijn)|"
    "(?:por favor,? )?(?:responda|digite sua resposta|escreva) acima desta linha|skriv (?:ditt )?svar ovanför (?:den här|denna) (?:raden|rad)|"
    "(?:proszę )?(?:wpisać|wpisz|napisz) odpowiedź (?:powyżej|nad) (?:tej|tą) lini[iąę]"
)
_HISTORY = re.compile(
    rf"^\s*(?:[-_*=]{{2,}}(?:\s|&nbsp;)*(?:{_HISTORY_WORDS})(?:\s|&nbsp;)*[-_*=]{{2,}}|"
    rf"[#*=-][#*=\s-]{{1,19}}(?:{_REPLY_ABOVE})\W{{0,40}})\s*$",
    re.IGNORECASE,
)
_FORWARDED_WORDS = (
    "begin forwarded message|forwarded message|forwarded by .{0,80}|weitergeleitete nachricht|"
    "anfang der weitergeleiteten (?:nachricht|e-mail)|message transf[ée]r[ée]|message r[ée]exp[ée]di[ée]|"
    "d[ée]but du message (?:r[ée]exp[ée]di[ée]|transf[ée]r[ée])|mensaje reenviado|inicio del mensaje reenviado|"
    "messaggio inoltrato|inizio (?:del )?messaggio inoltrato|doorgestuurd bericht|begin doorgestuurd bericht|"
    "mensagem (?:encaminhada|reencaminhada)|in[íi]cio da mensagem (?:encaminhada|reencaminhada)|"
    "vidarebefordrat (?:meddelande|brev)|start på videresendt besked|videresendt (?:besked|melding)|"
    "välitetty viesti(?: alkaa)?|wiadomo[śs][ćc] przekazana dalej|przekazana wiadomo[śs][ćc]|"
    "pocz[ąa]tek przekazywanej wiadomo[śs]ci|přeposlaná zpráva|začátek přeposlané zprávy|"
    "továbbított üzenet|iletilen ileti|пересылаемое сообщение|пересланное сообщение|"
    "начало переадресованного сообщения|転送メッセージ|転送されたメッセージ|转发的邮件|转发的消息|转发邮件|"
    "开始转发的邮件|轉寄的郵件|轉寄郵件|開始轉寄郵件|전달된 메시지(?: 시작)?"
)
# The first letters of such a line where no rule stands before it: each choice that the pattern leaves, and the letters
# that IGNORECASE takes for others.
_NUM_FIRST = 3
_TAKEN_FOR = {"i": ("i", "ı", "İ".lower()), "s": ("s", "ſ")}
_FORWARD_STARTS = frozenset(
    "".join(letters)
    for words in _FORWARDED_WORDS.split("|")
    for letters in product(
        *[many or _TAKEN_FOR.get(one, one) for many, one in re.findall(r"\[(.+?)\]|(.)", words)][:_NUM_FIRST]
    )
)
_FORWARDED = re.compile(
    rf"^\s*(?:[-_*=]{{2,}}\s*)?(?:{_FORWARDED_WORDS})\s*[:：]?(?:\s*[-_*=]{{2,}})?\s*$", re.IGNORECASE
)

_LABELS = {
    "from": "from|von|de|da|van|från|fra|od|от|від|lähettäjä|feladó|kimden|gönderen|de la|από|보낸 사람|보낸사람|"
    "差出人|送信者|发件人|發件人|寄件者|寄件人",
    "date": "sent|date|gesendet|gesendet am|datum|envoyé|envoyé le|date d'envoi|enviado|enviado el|enviada|enviada em|"
    "enviado em|fecha|data|inviato|inviato il|verzonden|skickat|sendt|dato|wysłano|wysłane|lähetetty|päivämäärä|"
    "odesláno|elküldve|küldve|dátum|gönderildi|tarih|trimis|στάλθηκε|ημερομηνία|отправлено|дата|надіслано|"
    "送信日時|日付|日時|发送时间|发送日期|日期|寄件日期|傳送時間|보낸 날짜|날짜",
    "to": "to|an|à|a|para|aan|till|til|do|pro|кому|vastaanottaja|komu|címzett|kime|alıcı|către|προς|받는 사람|받는사람|"
    "宛先|收件人|收件者",
    "subject": "subject|betreff|objet|asunto|oggetto|onderwerp|assunto|ämne|emne|temat|тема|aihe|předmět|tárgy|konu|"
    "subiect|θέμα|제목|件名|主题|主題|主旨",
}  # fmt: skip
_ROLES = {label: role for role, labels in _LABELS.items() for label in labels.split("|")}
_LABELLED = re.compile(r"^[\s*_]{0,4}([^\W\d][\w' ]{0,20}?)[\s*_]{0,3}[:：]")
_BOLD = re.compile(r"^\s*[*_]")
_MARKS = frozenset(">-_*=#＊―━─")


def short(line: str) -> str:
    """The line, or "" where it is too long for a header."""
    return line if len(line) <= LONGEST else ""


def telling(lines: list[str]) -> list[int]:
    """The places of the lines that may be more than prose, ascending: nothing below says yes to any other line.

    All of it asks for a rule or a quote mark at the beginning, for the first letters of a forward's announcement, for a
    colon, or for a colon at the end of one of the lines that follow.
    """
    # Lines begin alike far more often than not, so that each beginning is judged once.
    heads = [line[:_NUM_FIRST] for line in lines]
    telling_heads = {head for head in set(heads) if _may_tell(head)}
    tells = {at for at, head in enumerate(heads) if head in telling_heads} if telling_heads else set()
    tells.update(at for at, line in enumerate(lines) if ":" in line or "：" in line)
    for at in [at for at in tells if lines[at].rstrip().endswith((":", "："))]:
        tells.update(range(max(0, at - _INTRO_LINES + 1), at))
    return sorted(tells)


def _may_tell(head: str) -> bool:
    """Whether a line that begins so may: behind blanks anything may follow."""
    return head[:1] in _MARKS or head[:1].isspace() or head.lower() in _FORWARD_STARTS


def is_forward(line: str) -> bool:
    """Whether the line says that a forwarded mail begins."""
    return bool(_FORWARDED.match(short(line)))


def is_history(lines: list[str], at: int) -> bool:
    """Whether everything from this line on is an earlier mail, without quote marks."""
    line = short(lines[at])
    if _HISTORY.match(line) or is_block(lines, at):
        return True
    # "---- On Tue, 10 Nov 2026 09:14:22 +0000 somebody wrote ----", "-----Somebody <s@x> wrote: -----"
    return bool(
        _DASHED.match(line)
        and _WROTE.search(line.strip(" -"))
        and (_DATE_OR_TIME.search(line) or _ADDRESS.search(line))
    )


def next_text(lines: list[str], at: int) -> int | None:
    """Index of the next line that is not blank; None when there is none within a few lines."""
    return next((i for i in range(at, min(at + 5, len(lines))) if lines[i].strip()), None)


def intro_length(lines: list[str], at: int) -> int:
    """How many lines "On ... wrote:" takes from here; 0 when it does not begin here."""
    taken: list[str] = []
    for line in lines[at : at + _INTRO_LINES]:
        stripped = short(line).strip()
        if not stripped or stripped.startswith(">"):
            return 0
        taken.append(stripped)
        if stripped[-1] in ":：":
            break
    else:
        return 0
    # The sentence above an introduction is not its first line: it begins where its date does.
    starts = [n for n in range(len(taken)) if _is_intro(" ".join(taken[n:]), lines, at + len(taken))]
    return len(taken) if starts and max(starts, key=lambda n: (_looks_first(taken[n]), n)) == 0 else 0


def _looks_first(line: str) -> int:
    return 2 if _LEAD.match(line) else 1 if _DATE_OR_TIME.search(line) else 0


def _is_intro(joined: str, lines: list[str], after: int) -> bool:
    if len(joined) > LONGEST:
        return False
    follows = next_text(lines, after)
    quote_follows = follows is not None and bool(QUOTED.match(lines[follows]))
    if _JAPANESE_INTRO.match(joined):
        return True
    if quote_follows and _ADDRESS_LAST.search(joined) and _DATE_OR_TIME.search(joined):
        return True
    # mutt's "* name <address> [2026-11-10 09:14:22 +0000]:"
    if quote_follows and joined.startswith("* ") and joined.endswith("]:") and _ADDRESS.search(joined):
        return True
    if not _WROTE.search(joined):
        return False
    if quote_follows:
        return bool(_DATE.search(joined) or "@" in joined)
    # Without quote marks behind it more is asked: "On 5 May your colleague wrote:" is a customer's sentence.
    return bool(_DATE.search(joined) and _CLOCK_OR_ADDRESS.search(joined))


def is_block(lines: list[str], at: int) -> bool:
    """Outlook's From/Sent/To/Subject, in any order, with or without a rule above it."""
    if RULE.match(short(lines[at])):
        follows = next_text(lines, at + 1)
        return follows is not None and not RULE.match(short(lines[follows])) and is_block(lines, follows)
    first = role(lines[at])
    if first not in {"from", "date", "subject"}:
        return False
    window = lines[at : at + _BLOCK_LINES]
    # Who pastes an itinerary writes From, To and Date as well, without an address, a subject or bold labels.
    roles = [role(line) for line in window]
    if first != "from" and "from" not in roles[:3]:
        return False
    addressed = (
        "subject" in roles or bool(_BOLD.match(lines[at])) or any("@" in line[:200] for line in window)
    )
    return "date" in roles and ("to" in roles or "subject" in roles) and addressed


def role(line: str) -> str:
    """Which header of a mail the line is: "from", "date", "to", "subject" or ""."""
    found = _LABELLED.match(line[:60])
    return _ROLES.get(found[1].strip().casefold(), "") if found else ""
