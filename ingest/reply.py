"""The new part of a mail: without quoted history and signature, so that a brief is about today's words.

Line by line, each looked at a fixed number of times, so the time grows with the length and no faster.
When in doubt a line stays: history in a brief is untidy, a customer's lost sentence is a fault.
"""

import re
from bisect import bisect_left

# A header of quoted history is short; longer lines are prose.
_LONGEST_INTRO = 500
# Mail programs break "On ... wrote:" into at most this many lines.
_INTRO_LINES = 4

_QUOTED = re.compile(r"^ {0,3}>")
_SIGNATURE = re.compile(r"^-- ?$")
_BLANK_LINES = re.compile(r"\n{3,}")
_RULE = re.compile(r"^\s*[_\-*=]{5,}\s*$")

# "wrote" in: en de fr es it nl pt sv da/no pl fi cs tr ru uk ja zh ko.
_WROTE = re.compile(
    r"(?<!\w)(wrote|writes|schrieb|schreibt|hat geschrieben|a [ée]crit|[ée]crit|escribi[óo]|escrib[ií]a|ha scritto|scrisse|"
    r"schreef|heeft geschreven|escreveu|skrev|skrifade|napisał(?:\(?a\)?)?|pisze|kirjoitti|napsal(?:\(?a\)?)?|yazdı|"
    r"пишет|писал(?:\(?а\)?)?|написал(?:\(?а\)?)?|пише|написав)(?!\w)|書きました|写道|寫道|작성",
    re.IGNORECASE,
)
_JAPANESE_INTRO = re.compile(r"^\s*\d{4}年\d{1,2}月\d{1,2}日.*[@＠].*[:：]$")
_DATE_OR_TIME = re.compile(r"\d{1,2}[:.]\d{2}|\b(19|20)\d\d\b|\d{1,2}[./-]\d{1,2}[./-]\d{2}")
_CLOCK_OR_ADDRESS = re.compile(r"\d{1,2}:\d{2}|@")

_LEAD = re.compile(r"^\W*(on|am|le|el|il|op|em|den|dne|dnia|w dniu|vào|at)\b.*\d", re.IGNORECASE)

_HISTORY = re.compile(
    r"^\s*[-_*=]{2,}\s*(original message|original email|urspr[üu]ngliche (nachricht|mail|e-mail)|originalnachricht|"
    r"message d['’]origine|message original|mensaje original|messaggio originale|oorspronkelijk bericht|"
    r"mensagem original|originalmeddelande|ursprungligt meddelande|oprindelig meddelelse|opprinnelig melding|"
    r"wiadomo[śs][ćc] oryginalna|oryginalna wiadomo[śs][ćc]|исходное сообщение|оригинальное сообщение|"
    r"元のメッセージ|original ?メッセージ|原始邮件|原始郵件|원본 메시지)\s*[-_*=]{2,}\s*$",
    re.IGNORECASE,
)
_FORWARDED = re.compile(
    r"^\s*([-_*=]{2,}\s*)?(begin forwarded message|forwarded message|forwarded by .{0,80}|weitergeleitete nachricht|"
    r"anfang der weitergeleiteten (nachricht|e-mail)|message transf[ée]r[ée]|d[ée]but du message (r[ée]exp[ée]di[ée]|transf[ée]r[ée])|"
    r"mensaje reenviado|inicio del mensaje reenviado|messaggio inoltrato|inizio messaggio inoltrato|"
    r"doorgestuurd bericht|begin doorgestuurd bericht|mensagem (encaminhada|reencaminhada)|"
    r"vidarebefordrat meddelande|wiadomo[śs][ćc] przekazana dalej|przekazana wiadomo[śs][ćc]|"
    r"пересылаемое сообщение|пересланное сообщение|転送メッセージ|転送されたメッセージ|转发的邮件|轉寄的郵件)"
    r"\s*[:：]?(\s*[-_*=]{2,})?\s*$",
    re.IGNORECASE,
)

_LABELS = {
    "from": "from von de da van från fra od от 差出人 送信者 发件人 寄件者 寄件人",
    "date": "sent|date|gesendet|gesendet am|datum|envoyé|date d'envoi|enviado|enviado el|enviada em|enviado em|fecha|data|inviato|inviato il|verzonden|skickat|sendt|dato|wysłano|отправлено|дата|送信日時|日付|日時|发送时间|发送日期|日期|寄件日期|傳送時間",
    "to": "to an à a para aan till til do кому 宛先 收件人 收件者",
    "subject": "subject betreff objet asunto oggetto onderwerp assunto ämne emne temat тема 件名 主题 主旨",
}
_ROLES = {
    label: role for role, labels in _LABELS.items() for label in labels.split("|" if role == "date" else None)
}
_LABELLED = re.compile(r"^[\s*_]{0,4}([^\W\d][\w' ]{0,20}?)[\s*_]{0,3}[:：]")

_MOBILE = re.compile(
    r"^\s*(sent from my |sent from (outlook|yahoo|proton)|get outlook for |von meinem .{1,30} gesendet|gesendet von |"
    r"envoy[ée] de(puis)? mon |enviado desde mi |inviato da(l mio)? |verzonden vanaf mijn |enviado do meu |"
    r"skickat från min |wysłane z |отправлено с |iphoneから送信|发自我的)",
    re.IGNORECASE,
)


# How lines begin that may be a forward's heading; a line that begins with another letter and has no colon is prose.
_FORWARD_BEGINS = frozenset(["be", "fo", "we", "an", "me", "de", "in", "do", "vi", "wi", "pr"])


def new_text(text: str, *, forwarded: bool = False) -> str:
    """The sender's own words in their order; the text untouched when nothing would remain.

    `forwarded` says that the subject calls it a forward: then the forwarded mail is the content.
    """
    lines = text.split("\n")
    marks = _marks(lines)
    cites = forwarded or (">" in text and _only_cites(lines))
    kept: list[str] = []
    at = 0
    while at < len(lines):
        # Most lines are prose and are taken in one piece.
        mark = marks[bisect_left(marks, at)]
        if mark > at:
            kept += lines[at:mark]
            at = mark
            continue
        line = lines[at]
        if _FORWARDED.match(_short(line)):
            kept += lines[at:]
            break
        if _HISTORY.match(_short(line)) or _is_block(lines, at):
            if forwarded or not _has_words(kept):
                kept += lines[at:]
            break
        if intro := _intro_length(lines, at):
            follows = _next_text(lines, at + intro)
            if follows is not None and not _QUOTED.match(lines[follows]):
                # History without quote marks: where it ends cannot be seen, so it ends the new part.
                if forwarded or not _has_words(kept):
                    kept += lines[at:]
                break
            at += intro
            continue
        if _QUOTED.match(line) and not cites:
            kept.append("")
            at += 1
            continue
        if _SIGNATURE.match(line) and _has_words(kept):
            at = _signature_end(lines, at)
            continue
        kept.append(line)
        at += 1
    result = _tidy(kept)
    return result or text


def _marks(lines: list[str]) -> list[int]:
    """Indexes of the lines that may be more than prose, and the end: all rules below ask for one of these signs.

    A rule, a quote mark or a dash at the beginning, how a forward begins, a colon, or a heading's lines before that.
    """
    marks = [
        at
        for at, line in enumerate(lines)
        if ":" in line
        or (
            (head := line.lstrip()[:2])
            and (head[0] in "-_*=>" or head.lower() in _FORWARD_BEGINS or not head.isascii() or "：" in line)
        )
    ]
    before = {
        start
        for at in marks
        if lines[at].rstrip().endswith((":", "："))
        for start in range(max(0, at - _INTRO_LINES + 1), at)
    }
    return [*(sorted({*before, *marks}) if before else marks), len(lines)]


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_INTRO else ""


def _has_words(lines: list[str]) -> bool:
    return any(line.strip() and not _RULE.match(_short(line)) for line in lines)


def _only_cites(lines: list[str]) -> bool:
    """Whether "> " marks a passage that the sender cites, in a mail that answers none."""
    written = [line for line in lines if line.strip()]
    quoted = sum(bool(_QUOTED.match(line)) for line in written)
    if not quoted or 2 * quoted >= len(written) or _QUOTED.match(written[0]) or _QUOTED.match(written[-1]):
        return False
    return not any(_intro_length(lines, at) for at in range(len(lines)))


def _next_text(lines: list[str], at: int) -> int | None:
    """Index of the next line that is not blank; None when there is none within a few lines."""
    return next((i for i in range(at, min(at + 5, len(lines))) if lines[i].strip()), None)


def _intro_length(lines: list[str], at: int) -> int:
    """How many lines "On ... wrote:" takes from here; 0 when it does not begin here."""
    taken: list[str] = []
    for line in lines[at : at + _INTRO_LINES]:
        stripped = _short(line).strip()
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
    if len(joined) > _LONGEST_INTRO:
        return False
    follows = _next_text(lines, after)
    quote_follows = follows is not None and bool(_QUOTED.match(lines[follows]))
    if _JAPANESE_INTRO.match(joined):
        return True
    if not _WROTE.search(joined):
        return False
    if quote_follows:
        return bool(_DATE_OR_TIME.search(joined) or "@" in joined)
    # Without quote marks behind it more is asked: "On 5 May your colleague wrote:" is a customer's sentence.
    return bool(_DATE_OR_TIME.search(joined) and _CLOCK_OR_ADDRESS.search(joined))


def _is_block(lines: list[str], at: int) -> bool:
    """Outlook's From/Sent/To/Subject, in any order, with or without a rule above it."""
    if _RULE.match(_short(lines[at])):
        follows = _next_text(lines, at + 1)
        return follows is not None and not _RULE.match(_short(lines[follows])) and _is_block(lines, follows)
    if _role(lines[at]) != "from":
        return False
    roles = {role for line in lines[at : at + 8] if (role := _role(line))}
    return "date" in roles and bool(roles & {"to", "subject"})


def _role(line: str) -> str:
    found = _LABELLED.match(line[:60])
    return _ROLES.get(found[1].strip().casefold(), "") if found else ""


def _signature_end(lines: list[str], at: int) -> int:
    """A signature ends at the next quoted history: bottom posters have theirs above a quote."""
    for index in range(at + 1, len(lines)):
        line = lines[index]
        if _QUOTED.match(line) or _HISTORY.match(_short(line)) or _FORWARDED.match(_short(line)):
            return index
        if _is_block(lines, index) or _intro_length(lines, index):
            return index
    return len(lines)


def _tidy(kept: list[str]) -> str:
    lines = [line.rstrip() for line in kept]
    while lines and (not lines[-1] or _RULE.match(_short(lines[-1])) or _MOBILE.match(_short(lines[-1]))):
        lines.pop()
    text = "\n".join(lines)
    if "\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n", text)
    return text.strip("\n")
