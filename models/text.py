"""Plain text in and out of the model: what a person would see, nothing hidden. Knows no tokenizer."""

import re
import unicodedata

# Cc control, Cf format (bidi, zero-width), Co private, Cs surrogate.
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs"})
# A mark of the end with closing quotes, before space; the full-width marks need none. Or a line break.
_SENTENCE_END = re.compile(r"[.!?]{1,8}[\"'”’»)\]]{0,3}(?=\s|$)|[。！？]{1,8}|\n")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:no|nr|nos|e\.g|i\.e|etc|vs|mr|mrs|ms|dr|prof|st|approx|ca|incl|excl|art|tel|fig|dept|inc|ltd|z\.b|bzw|usw|bsp|str|d\.h|[a-z])$",
    re.IGNORECASE,
)
# A greeting or a sign-off alone says nothing about the matter.
_GREETING = re.compile(
    r"^(?:hi|hello|hey|dear|good (?:morning|afternoon|evening|day)|thanks|thank you|many thanks|best|kind regards|regards|cheers|sincerely|to whom it may concern"
    r"|sehr geehrte[rns]?|liebe[rs]?|hallo|guten (?:tag|morgen|abend)|moin|vielen dank|danke|mit freundlichen grüßen|viele grüße|beste grüße"
    r"|bonjour|bonsoir|madame|monsieur|cher|chère|merci|cordialement|bien à vous|hola|buen[oa]s (?:días|tardes|noches)|estimad[oa]s?|gracias|un saludo|saludos|atentamente"
    r"|buongiorno|buonasera|salve|gentile|grazie|cordiali saluti|ol[aá]|bom dia|boa (?:tarde|noite)|prezad[oa]s?|obrigad[oa]|hej|beste|geachte|dzień dobry|witam|szanowni|pozdrawiam|merhaba|здравствуйте|добрый день)\b"
    r"[^.!?]{0,50}[,.!:]*$",
    re.IGNORECASE,
)
# A line that is as long as this and is followed by another one was wrapped there by the sender's program.
WRAPPED_CHARS = 45


_ASCII_HIDDEN = {code: None for code in (*range(32), 127) if code != 10}


def visible(text: str) -> str:
    """`text` without control, bidi, zero-width and tag characters; line breaks are kept as \\n."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n").replace("\u2029", "\n")
    text = text.replace("\t", " ")
    if text.isascii():
        return text.translate(_ASCII_HIDDEN)  # most mail, and ten times as fast
    return "".join(char for char in text if char == "\n" or not _is_hidden(char))


def _is_hidden(char: str) -> bool:
    if char < "\x7f":
        return char < " "
    # Variation selectors are marks (Mn), but runs of them can carry hidden text; so can everything from U+E0000 on.
    return unicodedata.category(char) in _HIDDEN or "\ufe00" <= char <= "\ufe0f" or char >= "\U000e0000"


def compact(text: str) -> str:
    """Visible text with runs of spaces and of blank lines made one: the model pays for each."""
    lines = (" ".join(line.split()) for line in visible(text).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def one_line(text: str) -> str:
    """Visible text as a single line."""
    return " ".join(visible(text).split())


def sentences(text: str) -> list[str]:
    """The sentences of `text` (each one line), without greetings and sign-offs."""
    text = visible(text)
    parts = (one_line(text[start:end]) for start, end in sentence_spans(text))
    return [part for part in parts if part and not _GREETING.match(part)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where the sentences of `text` stand, [start, end) in characters; a line break ends one unless it only wraps.

    The dots in "No. 5", "e.g.", "Mr. X", "3.5" and "example.com" end none.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if match[0].startswith(".") and _ABBREVIATION.search(text, max(0, match.start() - 12), match.start()):
            continue
        if match[0] == "\n" and _is_wrapped(text, match.start()):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    return [trimmed for span in spans if (trimmed := _trim(text, *span))]


def _is_wrapped(text: str, place: int) -> bool:
    """Whether the line break at `place` only bounds the line's length: the sentence goes on behind it."""
    line = place - text.rfind("\n", 0, place) - 1
    after = text[place + 1 : place + 2]
    return line >= WRAPPED_CHARS and after.strip() != "" and after not in "-*>•"


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    end -= len(part) - len(part.rstrip())
    return (start, end) if start < end else None


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, cut between words, with an ellipsis where something was cut."""
    text = one_line(text)
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    return (head.rsplit(" ", 1)[0] if " " in head else head).rstrip(" ,;:.") + "…"
