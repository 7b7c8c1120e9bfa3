"""A tree of HTML elements as text, laid out as a person reads it: paragraphs, lists, table rows, links.

One walk without recursion, so that the time grows with the number of elements and depth costs no stack.
"""

import re
from urllib.parse import urlsplit

from lxml import etree

# A link is shown up to here: what is behind it is for the browser.
MAX_LINK = 80
# Beyond so many links nobody reads where they lead.
MAX_LINKS = 200
# Lists are indented so many steps at most.
MAX_INDENT = 8

# Elements that stand on lines of their own, with an empty line around them, or without.
_PARAGRAPHS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "table", "blockquote", "pre", "hr"}
_BLOCKS = {
    "address", "article", "aside", "body", "caption", "center", "dd", "details", "div", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "header", "html", "legend", "li", "main", "nav", "option", "section", "summary", "tbody",
    "tfoot", "thead", "tr",
}  # fmt: skip
_CELLS = {"td", "th"}
# Between two cells of a row.
_GAP = "  "
_NOTHING = {
    "head",
    "script",
    "style",
    "template",
    "title",
    "noframes",
    "object",
    "video",
    "audio",
    "iframe",
    "svg",
}
_SPACE = re.compile(r"[ \t\r\n\f]+")
_FRONT = re.compile(r"^(https?://)?(www\.)?")
_TRACKING = re.compile(
    r"^(utm_\w+|mc_[ce]id|fbclid|gclid|msclkid|_hs\w+|mkt_tok|trk\w*|ref_?src)$", re.IGNORECASE
)


class _Lines:
    """Text that grows: words, line breaks, empty lines."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.line: list[str] = []
        self.blank = False  # white space waits for the next word
        self.breaks = 2  # line breaks already there; none is needed at the beginning
        self.indent = 0
        self.prefix = ""

    def words(self, text: str) -> None:
        """Text in which white space is one blank."""
        collapsed = _SPACE.sub(" ", text)
        if collapsed == " " or not collapsed:
            self.blank = self.blank or bool(collapsed)
            return
        if (self.blank or collapsed[0] == " ") and self.line:
            self.line.append(" ")
        self.line.append(collapsed.strip(" "))
        self.blank = collapsed[-1] == " "

    def raw(self, text: str) -> None:
        """Text in which line breaks and blanks count."""
        first, *rest = text.split("\n")
        self.line.append(first)
        for line in rest:
            self.end_line(force=True)
            self.line.append(line)

    def end_line(self, *, force: bool = False) -> None:
        """End the line if there is one, or in any case."""
        self.blank = False
        if self.line or self.prefix:
            text = "".join(self.line)
            if text.strip() or force:
                self.out.append("  " * min(max(self.indent - 1, 0), MAX_INDENT) + self.prefix + text)
                self.prefix = ""
                self.breaks = 1
            self.line = []
        elif force:
            self.out.append("")
            self.breaks += 1

    def paragraph(self) -> None:
        """End the line and leave an empty one, unless there is one."""
        self.end_line()
        if self.breaks < 2:
            self.out.append("")
            self.breaks = 2


def render(tree: etree._Element) -> tuple[str, int]:
    """The text of a tree from which what nobody sees is gone already, and how deep the tree is."""
    lines = _Lines()
    lists: list[int] = []  # the number of the last item of each open list; -1 where items have none
    pre = 0
    skipping: etree._Element | None = None
    links = 0
    depth = deepest = 0
    for event, element in etree.iterwalk(tree, events=("start", "end", "comment", "pi")):
        if event in {"comment", "pi"}:
            if skipping is None and element.tail:
                _put(lines, element.tail, pre)
            continue
        tag = element.tag
        depth += 1 if event == "start" else -1
        if event == "start":
            deepest = max(deepest, depth)
            if skipping is not None:
                continue
            if tag in _NOTHING:
                skipping = element
                continue
            pre += tag == "pre"
            _open(lines, element, tag, lists)
            if element.text:
                _put(lines, element.text, pre)
            continue
        if skipping is not None and element is not skipping:
            continue
        if skipping is None:
            pre -= tag == "pre"
            if tag == "a" and links < MAX_LINKS:
                links += _link(lines, element)
            _close(lines, element, tag, lists)
        skipping = None
        if element.tail and element is not tree:
            _put(lines, element.tail, pre)
    lines.end_line()
    return "\n".join(lines.out).strip("\n"), deepest


def _put(lines: _Lines, text: str, pre: int) -> None:
    if pre:
        lines.raw(text)
    else:
        lines.words(text)


def _open(lines: _Lines, element: etree._Element, tag: str, lists: list[int]) -> None:
    if tag == "br":
        lines.end_line(force=True)
    elif tag in {"ul", "ol"}:
        # A list in a list follows its item without an empty line.
        lines.end_line() if lists else lines.paragraph()
        lists.append(_start(element) if tag == "ol" else -1)
        lines.indent = len(lists)
    elif tag == "li":
        lines.end_line()
        if lists and lists[-1] >= 0:
            lists[-1] += 1
        lines.prefix = f"{lists[-1]}. " if lists and lists[-1] >= 0 else "* "
    elif (tag in _PARAGRAPHS or tag in _BLOCKS) and _is_cell(element):
        return
    elif tag in _PARAGRAPHS:
        if lists and tag == "p":
            lines.end_line() if lines.line else None
        else:
            lines.paragraph()
    elif tag in _BLOCKS and not (lines.prefix and not lines.line):
        lines.end_line()
    elif tag in _CELLS and lines.line and lines.line[-1] != _GAP:
        lines.line.append(_GAP)
        lines.blank = False


def _is_cell(element: etree._Element) -> bool:
    """Whether it is all there is in a table's cell: Outlook makes a paragraph in each."""
    if element.tag not in {"p", "div"}:
        return False
    cell = element.getparent()
    return cell is not None and cell.tag in _CELLS and len(cell) == 1 and not (cell.text or "").strip()


def _close(lines: _Lines, element: etree._Element, tag: str, lists: list[int]) -> None:
    if tag in {"ul", "ol"}:
        if lists:
            lists.pop()
        lines.prefix = ""
        lines.end_line() if lists else lines.paragraph()
        lines.indent = len(lists)
    elif tag == "hr":
        lines.out.append("-----")
        lines.breaks = 1
        lines.paragraph()
    elif (tag in _PARAGRAPHS or tag in _BLOCKS) and _is_cell(element):
        lines.blank = True
    elif tag in _PARAGRAPHS and not (lists and tag == "p"):
        lines.paragraph()
    elif tag in _BLOCKS or tag == "p":
        lines.end_line()


def _start(element: etree._Element) -> int:
    value = element.get("start", "1")
    return int(value) - 1 if re.fullmatch(r"\d{1,6}", value) else 0


def _link(lines: _Lines, element: etree._Element) -> int:
    """Add where a link leads, in angle brackets, where its text does not say it; the number of links added."""
    text = "".join(element.itertext()).strip()
    target = shown_target(element.get("href", ""), text)
    if not target or not text:
        return 0
    lines.line.append(f" <{target}>")
    lines.blank = False
    return 1


def shown_target(href: str, text: str) -> str:
    """Where a link leads, short and without what only counts clicks; "" where the text says it already."""
    href = _SPACE.sub("", href)
    scheme, _, rest = href.partition(":")
    scheme = scheme.lower()
    if scheme in {"mailto", "tel"}:
        target = rest.partition("?")[0]
        return "" if not target or _same(target, text) else target[:MAX_LINK]
    if scheme not in {"http", "https"}:
        return ""
    try:
        parts = urlsplit(href)
    except ValueError:
        return ""
    if not parts.netloc:
        return ""
    # Who shows a name before the @ of an address shows somebody else's.
    host = parts.netloc.rpartition("@")[2]
    query = "&".join(
        pair for pair in parts.query.split("&") if pair and not _TRACKING.match(pair.partition("=")[0])
    )
    target = f"{scheme}://{host}{parts.path}" + (f"?{query}" if query else "")
    if _same(target, text):
        return ""
    return target if len(target) <= MAX_LINK else f"{scheme}://{host}{parts.path[:30]}..."[: MAX_LINK + 3]


def _same(target: str, text: str) -> bool:
    def bare(value: str) -> str:
        return _FRONT.sub("", value.strip().lower()).rstrip("/")

    return bare(target) == bare(text)
