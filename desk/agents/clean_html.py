"""A mail's own HTML, made harmless: no script, no request, no form, and links that lead nowhere and say where they would.

The cleaner (ammonia) has the last word: nothing touches the HTML after it. It is one of three walls; the others are
the sandbox and the policy with which the document is served.
"""

from collections.abc import Mapping

import nh3

from desk.agents.mail_html import ATTRIBUTES, LEADS_TO, LINK, TAGS, WITH_CONTENT, rewritten

# None of them can name an address, and none takes anything out of its place.
STYLES = frozenset(
    [
        "background-color",
        "border",
        "border-bottom",
        "border-collapse",
        "border-color",
        "border-left",
        "border-radius",
        "border-right",
        "border-style",
        "border-top",
        "border-width",
        "color",
        "direction",
        "font-family",
        "font-size",
        "font-style",
        "font-variant",
        "font-weight",
        "line-height",
        "margin",
        "margin-bottom",
        "margin-left",
        "margin-right",
        "margin-top",
        "max-width",
        "padding",
        "padding-bottom",
        "padding-left",
        "padding-right",
        "padding-top",
        "text-align",
        "text-decoration",
        "text-indent",
        "text-transform",
        "vertical-align",
        "white-space",
        "width",
    ]
)


def clean(html: str, images: Mapping[str, str]) -> str:
    """Harmless HTML for the inside of a body. `images` are data: addresses by Content-ID; other pictures go."""

    def kept(tag: str, name: str, value: str) -> str | None:
        if tag == "img" and name == "src":
            return images.get(value[4:]) if value.lower().startswith("cid:") else None
        if name == "style" and any(sign in value for sign in ("(", "\\", "@", "<")):
            return None
        return value

    return nh3.clean(
        rewritten(html),
        tags=set(TAGS - {"a"}),
        clean_content_tags=set(WITH_CONTENT),
        attributes={name: set(known) for name, known in ATTRIBUTES.items() if name != "a"},
        attribute_filter=kept,
        url_schemes={"cid"},
        filter_style_properties=set(STYLES),
        allowed_classes={"span": {LINK, LEADS_TO}},
        link_rel=None,
    )
