"""A mail's HTML, written anew as what it is made of: known tags, each closed where it ends, none too deep.

A parser's work can grow with the square of what a hostile mail leaves open, and with the product of open fonts and
paragraphs; what this module writes has neither. It is no cleaner: that one comes after it (desk/agents/clean_html.py).
"""

import re
from html import escape, unescape
from urllib.parse import urlsplit

MAX_HTML = 1_000_000
MAX_TAGS = 30_000
MAX_OPEN = 150
MAX_VALUE = 4_000
# Parsers join the words between two references anew for each.
MAX_SIGNS = 50_000

_FORMATS = frozenset(
    [
        "b",
        "i",
        "u",
        "s",
        "a",
        "em",
        "strong",
        "font",
        "small",
        "big",
        "code",
        "tt",
        "strike",
        "span",
        "mark",
        "del",
        "ins",
        "sub",
        "sup",
        "kbd",
        "samp",
        "var",
        "cite",
        "q",
        "bdi",
        "bdo",
        "abbr",
    ]
)
_BLOCKS = frozenset(
    [
        "p",
        "div",
        "center",
        "blockquote",
        "pre",
        "ul",
        "ol",
        "dl",
        "li",
        "dd",
        "dt",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "table",
        "caption",
        "colgroup",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "td",
        "th",
    ]
)
_VOID = frozenset(("br", "hr", "img", "wbr", "col"))
TAGS = _FORMATS | _BLOCKS | _VOID
# Blocks of newer or older HTML that are shown as plain ones.
_AS_DIV = frozenset(
    [
        "section",
        "article",
        "header",
        "footer",
        "main",
        "nav",
        "aside",
        "form",
        "fieldset",
        "address",
        "figure",
        "figcaption",
        "body",
    ]
)
# Gone with all that is in them.
WITH_CONTENT = frozenset(
    [
        "script",
        "style",
        "title",
        "svg",
        "math",
        "template",
        "noscript",
        "noembed",
        "noframes",
        "iframe",
        "frameset",
        "object",
        "applet",
        "audio",
        "video",
        "canvas",
        "textarea",
        "select",
        "datalist",
        "xmp",
        "plaintext",
    ]
)
ATTRIBUTES: dict[str, frozenset[str]] = {
    name: frozenset(("style", "dir", "lang", *words.split()))
    for name, words in {
        **dict.fromkeys(TAGS, ""),
        "img": "src alt width height",
        "font": "color face size",
        "table": "align width height bgcolor border cellpadding cellspacing",
        "td": "align valign width height bgcolor colspan rowspan",
        "th": "align valign width height bgcolor colspan rowspan",
        "tr": "align valign height bgcolor",
        "div": "align",
        "p": "align",
        "ol": "start",
    }.items()
}
LINK, LEADS_TO = "link", "leads-to"

# What a start tag ends, as far as it is found before one of the second.
_ENDS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "li": (frozenset(("li",)), frozenset(("ul", "ol", "table"))),
    **dict.fromkeys(("dd", "dt"), (frozenset(("dd", "dt")), frozenset(("dl", "table")))),
    **dict.fromkeys(("td", "th"), (frozenset(("td", "th")), frozenset(("table",)))),
    "tr": (frozenset(("tr",)), frozenset(("table",))),
    **dict.fromkeys(
        ("thead", "tbody", "tfoot"), (frozenset(("thead", "tbody", "tfoot")), frozenset(("table",)))
    ),
}
_PARTS_OF_TABLES = frozenset(("table", "caption", "colgroup", "thead", "tbody", "tfoot", "tr", "td", "th"))
_NO_SIGNS = {ord("&"): None, ord("<"): None}
_NAME = re.compile(r"[a-zA-Z][^\s/>]{0,30}")
_ATTRIBUTE = re.compile(
    r"""[\s/]*([^\s/>=][^\s/>=]*)(?:\s*=\s*(?:"([^"]*)("|\Z)|'([^']*)('|\Z)|([^\s>"'][^\s>]*)))?"""
)


def rewritten(html: str) -> str:
    """The same words and pictures in known, closed tags; links are text, with where they would lead behind it."""
    return _Writer(html[:MAX_HTML].replace("\0", "")).write()


class _Writer:
    """Reads from left to right once."""

    def __init__(self, html: str) -> None:
        self._html = html
        self._at = 0
        self._out: list[str] = []
        self._open: list[tuple[str, str]] = []  # name, and what closes it
        self._num_signs = 0
        self._unclosed: set[str] = set()  # tags that nothing closes from here on

    def write(self) -> str:
        """All of it."""
        for _ in range(MAX_TAGS):
            found = self._html.find("<", self._at)
            self._words(self._html[self._at : found if found >= 0 else None])
            if found < 0:
                break
            self._at = found + 1
            self._markup()
        self._close_to(0)
        return "".join(self._out)

    def _words(self, text: str) -> None:
        text = unescape(text) if "&" in text else text
        signs = text.count("&") + text.count("<")
        self._num_signs += signs
        if self._num_signs > MAX_SIGNS:
            text = text.translate(_NO_SIGNS)
        elif signs:
            text = text.replace("&", "&amp;").replace("<", "&lt;")
        self._out.append(text)

    def _markup(self) -> None:
        html, at = self._html, self._at
        if html.startswith("!--", at):
            self._skip_past("-->")
        elif html.startswith(("!", "?"), at):
            self._skip_past(">")
        elif name := _NAME.match(html, at):
            self._at = name.end()
            self._start(name[0].lower(), self._attributes())
        elif name := _NAME.match(html, at + 1) if html.startswith("/", at) else None:
            self._at = name.end()
            self._skip_past(">")
            self._end(name[0].lower())
        elif html.startswith("/", at):
            self._skip_past(">")
        else:
            self._words("<")

    def _skip_past(self, end: str) -> None:
        found = self._html.find(end, self._at)
        self._at = len(self._html) if found < 0 else found + len(end)

    def _attributes(self) -> dict[str, str]:
        """Those of the tag that is being read; the first of a name counts."""
        found: dict[str, str] = {}
        html = self._html
        while one := _ATTRIBUTE.match(html, self._at):
            self._at = one.end()
            value = next((v for v in (one[2], one[4], one[6]) if v is not None), "")
            if len(value) <= MAX_VALUE or one[1].lower() == "src":
                found.setdefault(one[1].lower(), unescape(value[:MAX_VALUE]))
        self._skip_past(">")
        return found

    # --- tags

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name in WITH_CONTENT:
            self._leave_out(name)
            return
        name = "div" if name in _AS_DIV else name
        if name not in TAGS:
            return
        self._end_implied(name)
        if name in _VOID:
            self._out.append(_tag(name, attributes))
        elif len(self._open) < MAX_OPEN and not (name == "a" and self._holds("a")):
            if name == "a":
                to = _leads_to(attributes.get("href", ""))
                opening, closing = f'<span class="{LINK}">', "</span>"
                closing += f'<span class="{LEADS_TO}"> ({escape(to)})</span>' if to else ""
            else:
                opening, closing = _tag(name, attributes), f"</{name}>"
            self._out.append(opening)
            self._open.append((name, closing))

    def _leave_out(self, name: str) -> None:
        if name in self._unclosed:
            return
        end = re.compile(f"</{name}(?=[\\s/>])", re.IGNORECASE).search(self._html, self._at)
        if end is not None:
            self._at = end.end()
            self._skip_past(">")
        else:
            self._unclosed.add(name)
            if name in ("script", "style", "title", "textarea", "plaintext", "xmp"):
                self._at = len(self._html)

    def _end_implied(self, name: str) -> None:
        """A block ends the paragraph before it, an item the item before it."""
        if name in _BLOCKS or name == "hr":
            for place in range(len(self._open) - 1, -1, -1):
                if self._open[place][0] == "p":
                    self._close_to(place)
                    break
                if self._open[place][0] not in _FORMATS:
                    break
        ended, boundary = _ENDS.get(name, (frozenset(), frozenset()))
        for place in range(len(self._open) - 1, -1, -1) if ended else ():
            if self._open[place][0] in ended:
                self._close_to(place)
                break
            if self._open[place][0] in boundary:
                break

    def _end(self, name: str) -> None:
        name = "div" if name in _AS_DIV else name
        for place in range(len(self._open) - 1, -1, -1):
            if self._open[place][0] == name:
                self._close_to(place)
                return
            # Nothing inside a table closes what is around it.
            if self._open[place][0] == "table" or (
                self._open[place][0] in _PARTS_OF_TABLES and name not in _PARTS_OF_TABLES
            ):
                return

    def _close_to(self, place: int) -> None:
        while len(self._open) > place:
            self._out.append(self._open.pop()[1])

    def _holds(self, name: str) -> bool:
        return any(one == name for one, _ in self._open)


def _tag(name: str, attributes: dict[str, str]) -> str:
    known = ATTRIBUTES[name]
    kept = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items() if key in known)
    return f"<{name}{kept}>"


def _leads_to(address: str) -> str:
    """Where a link would lead: the host, or the mail address or number."""
    try:
        parts = urlsplit("".join(address.split()))
        if parts.scheme.lower() in ("http", "https"):
            return (parts.hostname or "")[:200]
    except ValueError:
        return "an address that cannot be read"
    return parts.path[:200] if parts.scheme.lower() in ("mailto", "tel") else ""
