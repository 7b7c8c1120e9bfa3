"""What the conversation page says about a brief: language, quotations, what was left out, what supports a sentence.

A summary's sentence and the part of the mail that supports it carry the same number; the page joins them by it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sqlmodel import Session, col, select

from briefbox.schemas import BriefField, Grounding, Omission
from briefbox.settings import Settings
from briefbox.tables import Brief, Conversation

# So many of the newest briefs tell in which language customers usually write.
NUM_RECENT = 200
# English is about three quarters of a word for each token.
WORDS_PER_TOKEN = 0.75
MAX_QUOTE = 200

# ISO 639-1: the languages of Europe and those most written elsewhere. Others are shown by their code.
LANGUAGES = dict(
    pair.split(":")
    for pair in [
        "ar:Arabic",
        "bg:Bulgarian",
        "bn:Bengali",
        "ca:Catalan",
        "cs:Czech",
        "cy:Welsh",
        "da:Danish",
        "de:German",
        "el:Greek",
        "en:English",
        "es:Spanish",
        "et:Estonian",
        "eu:Basque",
        "fa:Persian",
        "fi:Finnish",
        "fr:French",
        "ga:Irish",
        "gl:Galician",
        "he:Hebrew",
        "hi:Hindi",
        "hr:Croatian",
        "hu:Hungarian",
        "id:Indonesian",
        "is:Icelandic",
        "it:Italian",
        "ja:Japanese",
        "ko:Korean",
        "lt:Lithuanian",
        "lv:Latvian",
        "ms:Malay",
        "mt:Maltese",
        "nb:Norwegian",
        "nl:Dutch",
        "nn:Norwegian",
        "no:Norwegian",
        "pl:Polish",
        "pt:Portuguese",
        "ro:Romanian",
        "ru:Russian",
        "sk:Slovak",
        "sl:Slovenian",
        "sq:Albanian",
        "sr:Serbian",
        "sv:Swedish",
        "sw:Swahili",
        "th:Thai",
        "tl:Tagalog",
        "tr:Turkish",
        "uk:Ukrainian",
        "ur:Urdu",
        "vi:Vietnamese",
        "zh:Chinese",
    ]
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text. `sentence` numbers a summary's sentence; `supports` the sentences that a mail's part supports.

    `first_of` are those that it is the first part of: where a link from the sentence leads to.
    """

    text: str
    sentence: int | None = None
    quote: str = ""  # of a sentence: the part of the mail that supports it
    supports: tuple[int, ...] = ()
    first_of: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BriefView:
    """What is said about one brief beside its values."""

    language: str  # by name; "" where it is the usual one or not known
    left_out: str  # a sentence; "" where all was read
    quoted: frozenset[BriefField]  # fields that stand there as quotations
    removed: tuple[str, ...]
    summary: tuple[Piece, ...]
    text: tuple[Piece, ...]  # of the mail that the brief is of


def view(
    session: Session, settings: Settings, conversation: Conversation, brief: Brief, text: str
) -> BriefView:
    """All of it. `text` is the mail's text as the page shows it."""
    grounding = Grounding.model_validate(brief.grounding)
    stands = {field for field in grounding.quoted if getattr(conversation, field) == getattr(brief, field)}
    spans: list[tuple[int, int] | None] = []
    if conversation.summary == brief.summary:
        asked = str(brief.request.get("text", ""))
        spans = [
            locate(asked, s.start, s.end, text) if s.start is not None and s.end is not None else None
            for s in grounding.sentences
        ]
    return BriefView(
        language=foreign_language(brief.language, usual_language(session, settings)),
        left_out=left_out(Omission.model_validate(value) for value in brief.omitted),
        quoted=frozenset(stands),
        removed=grounding.removed,
        summary=summary_pieces(conversation.summary, [s.text for s in grounding.sentences], spans, text),
        text=mail_pieces(text, spans),
    )


def usual_language(session: Session, settings: Settings) -> str:
    """The language that needs no mention: the one briefs are written in, or else the one most mail is in."""
    if settings.brief_language != "email":
        return settings.brief_language
    recent = session.exec(
        select(Brief.language)
        .where(col(Brief.shadow).is_(False))
        .order_by(col(Brief.id).desc())
        .limit(NUM_RECENT)
    )
    counted = Counter(language for language in recent if language)
    # Of two that are equally frequent English wins: the desk speaks it.
    return max(counted, key=lambda language: (counted[language], language == "en"), default="en")


def foreign_language(language: str, usual: str) -> str:
    """The language's name; "" where it is the usual one or not known."""
    return "" if language in ("", usual) else LANGUAGES.get(language, language)


def left_out(omissions: Iterable[Omission]) -> str:
    """One sentence for everything that the model did not read."""
    tokens: Counter[str] = Counter()
    emails: Counter[str] = Counter()
    for omission in omissions:
        tokens[omission.part] += omission.tokens
        emails[omission.part] += omission.emails
    earlier = "an earlier mail" if emails["earlier"] == 1 else f"{emails['earlier']:,} earlier mails"
    names = {"newest": "this mail", "original": "the first mail", "earlier": earlier}
    parts = [f"{words(tokens[part])} of {name}" for part, name in names.items() if part in tokens]
    return f"The model did not read: {', '.join(parts)}." if parts else ""


def words(tokens: int) -> str:
    """About how many words that is, to two figures: more would pretend to be exact."""
    number = max(1, round(tokens * WORDS_PER_TOKEN))
    number = round(number, 2 - len(str(number))) if number >= 100 else number
    return "about 1 word" if number == 1 else f"about {number:,} words"


# --- which part of the mail supports a sentence


def locate(asked: str, start: int, end: int, shown: str) -> tuple[int, int] | None:
    """Where the span [start, end) of what the model was asked stands in the text shown, spaces aside.

    The same place is taken where both texts agree, else the first one with these characters; None without any.
    """
    span = "".join(asked[start:end].split())
    if not span:
        return None
    places = [number for number, character in enumerate(shown) if not character.isspace()]
    squeezed = "".join(shown.split())
    at = len("".join(asked[:start].split()))
    if not squeezed.startswith(span, at):
        at = squeezed.find(span)
    if at < 0:
        return None
    return places[at], places[at + len(span) - 1] + 1


def summary_pieces(
    summary: str, sentences: Sequence[str], spans: Sequence[tuple[int, int] | None], text: str
) -> tuple[Piece, ...]:
    """The summary, cut into its sentences; those with a span are numbered."""
    pieces: list[Piece] = []
    done = 0
    for number, (sentence, span) in enumerate(zip(sentences, spans, strict=False)):
        at = summary.find(sentence, done) if sentence and span else -1
        if at < 0 or span is None:
            continue
        pieces.append(Piece(summary[done:at]))
        pieces.append(Piece(sentence, sentence=number, quote=_quote(text[slice(*span)])))
        done = at + len(sentence)
    return tuple(piece for piece in (*pieces, Piece(summary[done:])) if piece.text)


def mail_pieces(text: str, spans: Sequence[tuple[int, int] | None]) -> tuple[Piece, ...]:
    """The mail's text, cut wherever a span begins or ends; spans may overlap."""
    known = {number: span for number, span in enumerate(spans) if span is not None}
    cuts = sorted({0, len(text), *(place for span in known.values() for place in span)})
    return tuple(
        Piece(
            text[start:end],
            supports=tuple(n for n, (first, last) in known.items() if first <= start and end <= last),
            first_of=tuple(n for n, (first, _) in known.items() if first == start),
        )
        for start, end in pairwise(cuts)
    )


def _quote(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_QUOTE else line[: MAX_QUOTE - 1].rstrip() + "…"
