"""Facts that the model wrote must occur in the email: an invented amount is worse than none.

Checked are numbers, amounts, dates, times, ids, addresses, telephone numbers and links; names and claims are not.
`models.facts` finds and normalises them; here the two texts are compared.
"""

import re
from collections import Counter, defaultdict
from functools import cached_property

from briefbox.schemas import BriefRequest
from models.facts import Fact, Kind, find_facts, literal, plain
from models.text import sentence_spans

# A supporting sentence shares this many content words with the summary's, or a fact.
MIN_SHARED_WORDS = 2
# Longer texts are searched for support in this much of their beginning and of their end.
SUPPORT_CHARS = 20_000

_WORD = re.compile(r"[^\W\d_]{4,40}|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2}", re.UNICODE)
_SEPARATORS = ".,:/-'"


class Evidence:
    """What a person can see in one email: the only source of facts for its brief."""

    def __init__(self, request: BriefRequest) -> None:
        self.text = request.text
        parts = [
            request.subject,
            request.sender,
            request.text,
            *(part for email in request.earlier for part in (email.sender, email.text)),
        ]
        self._visible = "\n".join(parts)

    def missing(self, text: str) -> tuple[str, ...]:
        """The facts of `text`, as written there, that the email does not hold."""
        return tuple(fact.text for fact in find_facts(text) if not self.holds(fact))

    def holds(self, fact: Fact) -> bool:
        """Whether the email holds a fact in any of its usual forms."""
        if self._is_written(literal(fact.text)):
            return True
        if fact.kind == "phone":
            return any(
                _same_phone(number, known) for number in fact.values for known in self._values["phone"]
            )
        if fact.kind == "amount":
            return any(self._holds_amount(value) for value in fact.values)
        if fact.kind == "id":
            return self._holds_id(fact)
        return not self._values[fact.kind].isdisjoint(fact.values)

    def support(self, sentence: str) -> tuple[int, int] | None:
        """The span [start, end) of the request's text that supports a sentence best, or None."""
        words = _content(sentence)
        votes: Counter[int] = Counter()
        for word in words:
            # A word that stands in few sentences says more about which one is meant.
            places = self._places.get(word, ())
            for place in places:
                votes[place] += 1
        facts = find_facts(sentence)
        best: tuple[float, int] | None = None
        for place, shared in votes.most_common(20):
            start, end = self._spans[place]
            holding = sum(self._span_holds(fact, start, end) for fact in facts)
            if shared < MIN_SHARED_WORDS and not holding:
                continue
            size = len(_content(self.text[start:end]))
            score = (shared + 2 * holding) / (len(words) + 0.3 * size + 1)
            if best is None or score > best[0]:
                best = score, place
        if best is None:
            return self._span_of_fact(facts)
        return self._spans[best[1]]

    def _is_written(self, fact: str) -> bool:
        """Whether the very characters stand in the email, not inside a longer word or number."""
        text = self._literal
        place = text.find(fact) if fact else -1
        while place >= 0:
            end = place + len(fact)
            if not _continues(text, place - 1, -1, fact[0]) and not _continues(text, end, 1, fact[-1]):
                return True
            place = text.find(fact, place + 1)
        return False

    def _holds_amount(self, value: str) -> bool:
        currency, _, number = value.partition(" ")
        known = {known for known in self._values["amount"] if known.partition(" ")[2] == number}
        if known:
            return value in known or (
                any(not k.partition(" ")[0] for k in known) and currency in self._currencies
            )
        # The number without a currency beside it: right if the email speaks of this currency at all.
        return number in self._values["number"] and (not currency or currency in self._currencies)

    def _holds_id(self, fact: Fact) -> bool:
        """The id itself, or its figures where the email has them without the letters ("order 48213", "ORD-48213")."""
        if not self._values["id"].isdisjoint(fact.values):
            return True
        figures = re.findall(r"\d{1,40}", fact.text)
        letters = re.findall(r"[^\W\d_]{1,40}", literal(fact.text))
        return (
            sum(map(len, figures)) >= 3
            and all(figure in self._runs for figure in figures)
            and all(word in self._words or (2 <= len(word) <= 4 and self._begins(word)) for word in letters)
        )

    def _begins(self, letters: str) -> bool:
        """Whether a word of the email begins with these letters: ORD for order, INV for invoice."""
        return any(word.startswith(letters) for word in self._words)

    def _span_holds(self, fact: Fact, start: int, end: int) -> bool:
        found = literal(self.text[start:end])
        return literal(fact.text) in found or any(
            not set(fact.values).isdisjoint(other.values) for other in find_facts(self.text[start:end])
        )

    def _span_of_fact(self, facts: tuple[Fact, ...]) -> tuple[int, int] | None:
        for start, end in self._spans if facts else ():
            if any(self._span_holds(fact, start, end) for fact in facts if len(fact.text) > 2):
                return start, end
        return None

    @cached_property
    def _literal(self) -> str:
        return literal(self._visible)

    @cached_property
    def _values(self) -> defaultdict[Kind, set[str]]:
        values: defaultdict[Kind, set[str]] = defaultdict(set)
        for fact in find_facts(self._visible, everything=True):
            values[fact.kind].update(fact.values)
        return values

    @cached_property
    def _currencies(self) -> set[str]:
        return {value.partition(" ")[0] for value in self._values["currency"] | self._values["amount"]}

    @cached_property
    def _runs(self) -> set[str]:
        return set(re.findall(r"\d{1,40}", plain(self._visible)))

    @cached_property
    def _words(self) -> set[str]:
        return set(re.findall(r"[^\W\d_]{2,40}", self._literal))

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        spans = sentence_spans(self.text[:SUPPORT_CHARS])
        if (rest := max(SUPPORT_CHARS, len(self.text) - SUPPORT_CHARS)) < len(self.text):
            spans += [(start + rest, end + rest) for start, end in sentence_spans(self.text[rest:])]
        return spans

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        places: defaultdict[str, list[int]] = defaultdict(list)
        for number, (start, end) in enumerate(self._spans):
            for word in _content(self.text[start:end]):
                places[word].append(number)
        return places


def _content(text: str) -> set[str]:
    """The beginnings of its longer words: forms of a word count as the same."""
    return {word[:6] for word in _WORD.findall(literal(text))}


def _continues(text: str, place: int, step: int, edge: str) -> bool:
    """Whether the word or number at `edge` goes on at `place`, read in the direction of `step`."""
    if not 0 <= place < len(text):
        return False
    char = text[place]
    if char.isalnum():
        # Scripts without spaces: a figure beside a letter of theirs is a whole one.
        return char.isdigit() == edge.isdigit() or (char.isascii() and edge.isalnum())
    beyond = place + step
    return edge.isdigit() and char in _SEPARATORS and 0 <= beyond < len(text) and text[beyond].isdigit()


def _same_phone(number: str, known: str) -> bool:
    """Whether the email's number `known` holds `number`: equal, or without its country's code (0170 of +49 170)."""
    if number.startswith("+"):
        return number[1:] == known.lstrip("+").removeprefix("00")
    national = number.removeprefix("0")
    return len(national) >= 7 and known.lstrip("+").endswith(national)
