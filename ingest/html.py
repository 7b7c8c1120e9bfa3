"""HTML to the text that a person would see.

Text that is in the HTML but not visible (display:none, size zero, the background's colour) is left out and
reported: it is a way to talk to the model past the reader. Quotes of mail programs become "> " lines.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from lxml import etree

from ingest.quote_headers import is_block, is_forward
from ingest.render import render

# Marks that survive the layout and are not in any mail's text: they are taken out of it first.
_OPEN, _CLOSE = "\ue000", "\ue001"
# More than any person writes; newsletters with embedded pictures stay below it.
MAX_HTML = 2_000_000
# Beyond this depth the parser may have dropped words, and the words alone are taken instead.
MAX_NESTING = 200

_AT_RULE = re.compile(r"@[\w-]+")
_HIDING = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|mso-hide\s*:\s*all|"
    r"(?:text-indent|left|top|right|margin-left|margin-top)\s*:\s*-\d{4,}(?:\.\d+)?px|"
    r"clip\s*:\s*rect\(\s*0(?:px)?[\s,]+0(?:px)?[\s,]+0(?:px)?[\s,]+0(?:px)?\s*\)|clip-path\s*:\s*inset\(\s*100%|"
    r"transform\s*:\s*scale\(\s*0\s*[,)]|"
    r"opacity\s*:\s*0*(?:\.0+)?\s*(?:!important\s*)?(?:;|$)|"
    r"(?:max-height|max-width|width|height)\s*:\s*0(?:px|pt)?\s*(?:!important\s*)?;.{0,300}overflow\s*:\s*hidden|"
    r"overflow\s*:\s*hidden\s*;.{0,300}(?:max-height|max-width|width|height)\s*:\s*0(?:px|pt)?\s*(?:!important\s*)?(?:;|$))",
    re.IGNORECASE,
)
_SIZE = re.compile(
    r"(?:^|;)\s*font-size\s*:\s*(?:(0*(?:\.0+)?(?:px|pt|em|rem|%)?|0*1px)|[^;]+?)\s*(?:!important\s*)?(?=;|$)",
    re.IGNORECASE,
)
_COLOUR = re.compile(r"(?:^|;)\s*color\s*:\s*([^;!]+)", re.IGNORECASE)
_BACKGROUND = re.compile(r"(?:^|;)\s*background(?:-color)?\s*:\s*([^;!]+)", re.IGNORECASE)
_RGB = re.compile(r"rgba?\(\s*(\d{1,3})\s*[,\s]\s*(\d{1,3})\s*[,\s]\s*(\d{1,3})\s*(?:[,/]\s*([\d.]+)(%?))?")
# Colours closer than this in each of red, green and blue cannot be told apart.
_NEAR = 8
_NAMED = {"white": "ffffff", "black": "000000", "red": "ff0000", "blue": "0000ff", "green": "008000"}
_QUOTE_CLASSES = {"gmail_quote", "protonmail_quote", "yahoo_quoted", "tutanota_quote", "zmail_extra"}
_SIGNATURE_CLASSES = {"gmail_signature", "moz-signature", "protonmail_signature_block", "tutanota_signature"}
_SIGNATURE_IDS = {"signature", "ms-outlook-mobile-signature", "applemailsignature"}
_MAX_SIGNATURES = 5
_INTRODUCTION = re.compile(r"(?:@|\d:\d\d).*[:：]$", re.DOTALL)
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
# A style attribute is looked at up to here.
_MAX_STYLE = 2_000
_UNSEEN = {"script", "style", "template", "title"}
# Elements without an attribute hide nothing, but for these.
_MAY_HIDE = "//*[@* or " + " or ".join(f"self::{tag}" for tag in sorted(_UNSEEN | {"input"})) + "]"
_BLANKS = " \t\r\n\u00a0\u200b\u200c\u200d\u034f"


@dataclass(frozen=True, slots=True)
class VisibleText:
    """Text as a person sees it; `hidden` tells that there was more."""

    text: str
    hidden: bool = False
    simplified: bool = False


def visible_text(source: str) -> VisibleText:
    """The visible text of an HTML document, quotes as "> " lines."""
    source = source[:MAX_HTML].replace(_OPEN, "").replace(_CLOSE, "")
    # An XML declaration with an encoding is refused in front of decoded text.
    source = re.sub(r"^\s*<\?xml[^>]{0,200}\?>", "", source)
    if not source.strip():
        return VisibleText("")
    try:
        tree = _parsed(source)
    except (etree.LxmlError, ValueError):
        return VisibleText(_without_tags(source), simplified=True)
    hidden = _drop_hidden(tree)
    _mark_signatures(tree)
    _mark_quotes(tree)
    text, depth = render(tree)
    if depth > MAX_NESTING:
        # lxml gives up at 255 levels and drops the rest, text and all.
        text = _quote_lines(_plain(tree))
        return VisibleText(text if text.strip() else _without_tags(source), hidden, simplified=True)
    return VisibleText(_quote_lines(text), hidden)


def _parsed(source: str) -> etree._Element:
    """The whole document. Raises LxmlError and ValueError."""
    # Not lxml.html's parser, which looks up a class of its own for every element that is touched.
    tree = etree.fromstring(source, etree.HTMLParser())
    if tree is None:
        raise ValueError("no element in it")
    return tree


def _without_tags(source: str) -> str:
    return " ".join(re.sub(r"<[^<>]{0,2000}>", " ", source).split())


def _drop_hidden(tree: etree._Element) -> bool:
    classes, ids = _hiding_selectors(tree)
    styled = bool(tree.xpath("boolean(//style|//link)"))
    hidden = False
    known: dict[etree._Element, str | None] = {}  # backgrounds
    # The list keeps every element alive, so that each can be remembered by itself.
    for element in tree.xpath(_MAY_HIDE):
        if element.tag in _UNSEEN:
            _drop(element)
        elif _is_hidden(element, classes, ids, known, styled=styled) and element.getparent() is not None:
            hidden = hidden or _says(*element.itertext())
            _drop(element)
        elif _style_of(element).size == 0 and element.tag not in {"html", "body"}:
            hidden = _drop_small(element) or hidden
    return hidden


def _says(*texts: str) -> bool:
    return bool("".join(texts).strip(_BLANKS))


class _Style(NamedTuple):
    """What a style attribute says of seeing the text."""

    hides: bool = False
    size: int | None = None  # 0 where it makes the text too small to see, 1 where it gives another size
    colour: str = ""  # as _hex() has it; "none" where it lets all through
    behind: str = ""  # the background, in its own words


@lru_cache(maxsize=2048)  # the same few styles stand at hundreds of elements
def _style(text: str) -> _Style:
    """`text` is cut to what is looked at."""
    lower = text.lower()
    # The last word counts.
    sizes = list(_SIZE.finditer(text)) if "font-size" in lower else []
    found = _COLOUR.search(text) if "color" in lower else None
    behind = _BACKGROUND.search(text) if "background" in lower else None
    colour = _hex(found[1]) if found else ""
    return _Style(
        hides=bool(_HIDING.search(text)),
        size=None if not sizes else 0 if sizes[-1][1] is not None else 1,
        colour=colour,
        behind=behind[1] if behind else "",
    )


_UNSTYLED = _Style()


def _style_of(element: etree._Element) -> _Style:
    text = element.get("style")
    return _style(text[:_MAX_STYLE]) if text else _UNSTYLED


def _drop_small(top: etree._Element) -> bool:
    """Take out text of no size; what is inside and has a size again stays: layouts are made that way."""
    hidden = False
    waiting = [top]
    while waiting:
        element = waiting.pop()
        hidden = hidden or _says(element.text or "")
        element.text = None
        for child in element:
            hidden = hidden or _says(child.tail or "")
            child.tail = None
            if isinstance(child.tag, str) and _style_of(child).size != 1:
                waiting.append(child)
    return hidden


def _is_hidden(
    element: etree._Element,
    classes: set[str],
    ids: set[str],
    known: dict[etree._Element, str | None],
    *,
    styled: bool,
) -> bool:
    if element.tag in {"html", "body"}:
        return False
    if element.get("hidden") is not None or element.get("id", "").lower() in ids:
        return True
    if classes and classes & set(element.get("class", "").lower().split()):
        return True
    if element.tag == "input":
        return True
    style = _style_of(element)
    colour = style.colour
    if element.tag == "font" and (written := element.get("color")):
        colour = _hex(written)
    return style.hides or (bool(colour) and _is_colour_behind(element, colour, known, styled=styled))


def _is_colour_behind(
    element: etree._Element, colour: str, known: dict[etree._Element, str | None], *, styled: bool
) -> bool:
    """Whether the text has the colour of what is certainly behind it."""
    if colour == "none":
        return True
    behind = _behind(element, known)
    if behind is None:
        return False
    # Nothing said: mail is white, unless a stylesheet may have painted it.
    return _near(behind, colour) if behind else _near(colour, "ffffff") and not styled


def _behind(element: etree._Element, known: dict[etree._Element, str | None]) -> str | None:
    """The colour behind an element; "" where nothing says it, None where it is a picture. `known` remembers."""
    path: list[etree._Element] = []
    at: etree._Element | None = element
    colour: str | None = ""
    while at is not None:
        if at in known:
            colour = known[at]
            break
        path.append(at)
        shown = _style_of(at).behind or at.get("bgcolor", "")
        if at.get("background") or "url(" in shown or "gradient" in shown:
            colour = None
            break
        if shown and (painted := _hex(shown)) not in {"", "none"}:
            colour = painted
            break
        at = at.getparent()
    known.update(dict.fromkeys(path, colour))
    return colour


def _near(one: str, other: str) -> bool:
    return all(abs(int(one[at : at + 2], 16) - int(other[at : at + 2], 16)) < _NEAR for at in (0, 2, 4))


def _hex(colour: str) -> str:
    """Six hexadecimal digits; "none" for a colour that lets all through, "" for one that is not known."""
    colour = colour.strip().lower()
    if colour == "transparent":
        return "none"
    if "rgb" not in colour:
        colour = colour.split(" ")[0]
    if found := _RGB.match(colour):
        if found[4] and not found[4].strip("0."):
            return "none"
        return "".join(f"{min(int(part), 255):02x}" for part in found.groups()[:3])
    if re.fullmatch(r"#?[0-9a-f]{6}", colour):
        return colour.lstrip("#")
    if re.fullmatch(r"#[0-9a-f]{3}", colour):
        return "".join(2 * ch for ch in colour[1:])
    return _NAMED.get(colour, "")


def _hiding_selectors(tree: etree._Element) -> tuple[set[str], set[str]]:
    """Classes and ids that the document's own stylesheet hides for everybody."""
    classes: set[str] = set()
    ids: set[str] = set()
    for style in tree.iter("style"):
        for block in _without_at_blocks(_without_comments((style.text or "")[:200_000])).split("}"):
            selectors, _, rules = block.partition("{")
            small = list(_SIZE.finditer(rules[:2000]))
            if _HIDING.search(rules[:2000]) or (small and small[-1][1] is not None):
                for selector in selectors[-500:].lower().split(","):
                    if found := re.fullmatch(r"\s*[a-z]*([.#])([\w-]+)\s*", selector):
                        (classes if found[1] == "." else ids).add(found[2])
    return classes, ids


def _without_comments(css: str) -> str:
    kept, at = [], 0
    while (start := css.find("/*", at)) >= 0:
        kept.append(css[at:start])
        at = css.find("*/", start) + 2
        if at < 2:
            return "".join(kept)
    kept.append(css[at:])
    return "".join(kept).replace("<!--", "").replace("-->", "")


def _without_at_blocks(css: str) -> str:
    """Without @media and the like, whose rules hold on some screens only."""
    kept, at = [], 0
    while found := _AT_RULE.search(css, at):
        kept.append(css[at : found.start()])
        depth = 0
        at = len(css)
        for index in range(found.end(), len(css)):
            depth += {"{": 1, "}": -1}.get(css[index], 0)
            if (css[index] == "}" and depth <= 0) or (css[index] == ";" and depth == 0):
                at = index + 1
                break
    kept.append(css[at:])
    return "".join(kept)


def _drop(element: etree._Element) -> None:
    """Empty an element and leave the text after it where it is; moving that text would take time squared."""
    element.clear(keep_tail=True)
    element.tag = "span"


def _mark_quotes(tree: etree._Element) -> None:
    # All that follows the first of these is marked with it; one mark for each would let the lines grow endlessly.
    header = next((one for one in tree.iter("div") if one.get("id") == "divRplyFwdMsg"), None)
    if header is not None:
        _mark_rest(header)
    ruled = _ruled_styles(tree)
    for element in tree.iter("blockquote", "div", "span"):
        if _is_quote(element) or (element.tag == "blockquote" and element.get("style") in ruled):
            _open_quote(element)
            _add_block(element, len(element), _CLOSE)


def _ruled_styles(tree: etree._Element) -> set[str]:
    """The styles of blocks with a line at the left that begin as an earlier mail's header: Outlook, with answers between."""
    found: set[str] = set()
    for element in tree.iter("blockquote"):
        style = element.get("style", "")
        if style not in found and "border-left" in style.lower():
            first = list(islice((text.strip() for text in element.itertext() if text.strip()), 20))
            if first and is_block(first, 0):
                found.add(style)
    return found


def _open_quote(element: etree._Element) -> None:
    # Letters that a character reference may give and XML may not hold; they are invisible, and left out later in any case.
    element.text = _OPEN + _NOT_XML.sub("", element.text or "")


def _is_quote(element: etree._Element) -> bool:
    """Whether a mail program marks the element as an earlier mail; a forwarded one is none."""
    names = set(element.get("class", "").lower().split())
    if element.tag == "blockquote":
        cited = element.get("type", "").lower() == "cite" or element.get("id") == "isReplyContent"
        return cited or bool(_QUOTE_CLASSES & names) or _is_introduced(element)
    if element.tag not in {"div", "span"}:
        return False
    # GMX and WEB.DE, Outlook for Mac, Outlook on the web, Yahoo (which prefixes its names).
    marked = (
        element.get("name") == "quote"
        or element.get("id", "") in {"OLK_SRC_BODY_SECTION", "mail-editor-reference-message-container"}
        or any(name.endswith("yahoo_quoted") for name in names)
    )
    return marked and not any(is_forward(text) for text in islice(element.itertext(), 10))


def _is_introduced(quote: etree._Element) -> bool:
    """Whether a line with an address or a clock time and a colon stands above: some programs mark nothing else."""
    if "border-left" not in quote.get("style", "").lower():
        return False
    before = quote.getprevious()
    for _ in range(3):
        text = ((before.tail or "") if before is not None else "").strip(_BLANKS)
        if before is not None and not text and before.tag != "br" and isinstance(before.tag, str):
            text = "".join(islice(before.itertext(), 20)).strip(_BLANKS)
        if text or before is None:
            break
        before = before.getprevious()
    return bool(_INTRODUCTION.search(text[-300:]))


def _mark_rest(header: etree._Element) -> None:
    """Outlook on the web marks the earlier mail's header alone: all that follows it belongs to it."""
    parent = header.getparent()
    if parent is None:
        return
    _open_quote(header)
    _add_block(parent, len(parent), _CLOSE)


def _mark_signatures(tree: etree._Element) -> None:
    """Put "--" above what a mail program marks as its user's signature, where only quotes follow it."""
    found = [element for element in tree.iter("div", "span", "pre") if _is_signature(element)]
    for element in found[:_MAX_SIGNATURES]:
        first = next((text.strip() for text in element.itertext() if text.strip()), "")
        parent = element.getparent()
        if not first or first == "--" or parent is None or not _only_quotes_follow(element):
            continue
        _add_block(parent, parent.index(element), "--")


def _is_signature(element: etree._Element) -> bool:
    names = set(element.get("class", "").lower().split())
    return bool(_SIGNATURE_CLASSES & names) or element.get("id", "").lower() in _SIGNATURE_IDS


def _only_quotes_follow(element: etree._Element) -> bool:
    """Whether no words of the sender's come after the element: then all from it on may be left out."""
    at: etree._Element | None = element
    while at is not None and at.tag != "body":
        if (at.tail or "").strip(_BLANKS):
            return False
        for sibling in at.itersiblings():
            if not isinstance(sibling.tag, str):  # a comment
                if (sibling.tail or "").strip(_BLANKS):
                    return False
                continue
            if (
                sibling.get("id") in {"divRplyFwdMsg", "appendonsend"}
                or _is_quote(sibling)
                or _holds_intro(sibling)
            ):
                return True
            if "".join(sibling.itertext()).strip(_BLANKS) or (sibling.tail or "").strip(_BLANKS):
                return False
        at = at.getparent()
    return True


def _holds_intro(element: etree._Element) -> bool:
    names = set(element.get("class", "").lower().split())
    return bool(names & (_QUOTE_CLASSES | {"moz-cite-prefix", "gmail_attr", "gmail_quote_container"}))


def _add_block(parent: etree._Element, at: int, text: str) -> None:
    block = etree.Element("div")
    block.text = text
    parent.insert(at, block)


def _quote_lines(text: str) -> str:
    """Turn the marks into "> " and the layout's wide gaps into narrow ones."""
    depth, lines = 0, []
    for line in text.replace("\u00a0", " ").split("\n"):
        opened = line.count(_OPEN)
        closed = line.count(_CLOSE)
        depth += opened
        bare = re.sub(r"[ \t]{3,}", "  ", line.replace(_OPEN, "").replace(_CLOSE, "")).strip()
        if bare or not (opened or closed):
            lines.append(f"{'> ' * depth}{bare}".rstrip() if depth else bare)
        depth = max(0, depth - closed)
    return "\n".join(lines)


def _plain(tree: etree._Element) -> str:
    parts = (text.strip() for text in tree.itertext())
    return "\n".join(text for text in parts if text)
