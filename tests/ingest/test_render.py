"""HTML as text: lines, lists, tables, and where links lead."""

import random

import pytest

from ingest.html import visible_text
from ingest.render import shown_target


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<p>a</p><p>b<span> c</span>d</p>", "a\n\nb cd"),
        ("<div>one</div><div><br></div><div>two</div>", "one\n\ntwo"),
        ("one<br>two<br><br>three", "one\ntwo\n\nthree"),
        ("<ul><li>one</li><li><p>two</p></li></ul>", "* one\n* two"),
        ("<ol start=3><li>x<li>y</ol>", "3. x\n4. y"),
        ("<pre>a\n  b</pre>", "a\nb"),
        ("<p>a <!-- no --> b</p>", "a b"),
        ("<p>a</p><script>no</script><style>no</style><svg><text>no</text></svg>b", "a\n\nb"),
        ("<h1>Title</h1>text<hr>more", "Title\n\ntext\n\n-----\n\nmore"),
        ("<table><tr><th>Item<th>Price<tr><td>Lamp<td>5</table>", "Item  Price\nLamp  5"),
        ("<table><tr><td><p>Lamp</p></td><td><p>5</p></td></tr></table>", "Lamp  5"),
        ("<table><tr><td><table><tr><td>a</td><td>b</td></tr></table></td></tr></table>", "a  b"),
        ("<table><tr><td><p>a</p><p>b</p></td></tr></table>", "a\n\nb"),
        ('<p>a <img src="x" alt="ALT" title="TITLE"> b</p>', "a b"),
        ("<dl><dt>Order</dt><dd>4711</dd></dl>", "Order\n4711"),
    ],
)
def test_elements_stand_as_a_person_reads_them(source: str, text: str) -> None:
    assert visible_text(f"<html><body>{source}</body></html>").text.strip() == text


@pytest.mark.parametrize(
    ("href", "text", "shown"),
    [
        ("https://shop.example/orders/5", "your order", "https://shop.example/orders/5"),
        ("https://shop.example/", "shop.example", ""),
        ("https://www.shop.example", "https://shop.example/", ""),
        ("https://evil.example/", "https://shop.example/", "https://evil.example/"),
        ("https://shop.example@evil.example/x", "shop", "https://evil.example/x"),
        ("https://e.example/a?utm_source=x&id=3&fbclid=9", "here", "https://e.example/a?id=3"),
        ("https://e.example/" + "a" * 500, "here", "https://e.example/" + "a" * 29 + "..."),
        ("mailto:ana@example.org?subject=x", "write to us", "ana@example.org"),
        ("mailto:ana@example.org", "ana@example.org", ""),
        ("tel:+4930123", "call", "+4930123"),
        ("javascript:alert(1)", "here", ""),
        ("#top", "top", ""),
        ("cid:logo", "logo", ""),
        ("https://[broken", "here", ""),
        ("", "here", ""),
    ],
)
def test_where_a_link_leads_is_shown_where_its_text_does_not_say_it(href: str, text: str, shown: str) -> None:
    assert shown_target(href, text) == shown


def test_a_link_is_text_and_its_target() -> None:
    page = '<p>See <a href="https://shop.example/5"><b>your</b> order</a>, please.</p>'
    assert visible_text(page).text == "See your order <https://shop.example/5>, please."


def test_a_picture_that_is_a_link_says_nothing() -> None:
    assert visible_text('<p>Hi</p><a href="https://t.example/x"><img src="y"></a>').text.strip() == "Hi"


def test_a_hidden_link_is_nowhere() -> None:
    seen = visible_text('<p>Hi</p><div style="display:none"><a href="https://t.example/">x</a></div>')
    assert "t.example" not in seen.text
    assert seen.hidden


@pytest.mark.parametrize("between", ["<!-- c -->", "<!--[if mso]><p>x</p><![endif]-->", "<?pi x?>"])
def test_a_comment_beside_a_signature_or_a_quote_does_no_harm(between: str) -> None:
    signed = f'<p>Hello</p>{between}<div class="gmail_signature">Ana</div>{between}'
    assert visible_text(signed).text == "Hello\n\n--\nAna"
    quoted = (
        f'<p>ana@example.org 12:30:</p>{between}<blockquote style="border-left:1px">old</blockquote>{between}'
    )
    assert "> old" in visible_text(quoted).text


@pytest.mark.parametrize("letter", ["&#1;", "&#x1f;", "&#xffff;", "&#xd800;", "\x01", "\ufffe"])
def test_letters_that_xml_does_not_hold_do_no_harm_in_a_quote(letter: str) -> None:
    source = (
        f'<p>new</p><blockquote type="cite">{letter}old</blockquote><div id="divRplyFwdMsg">{letter}x</div>'
    )
    assert "old" in visible_text(source).text


def test_no_mixture_of_elements_marks_and_comments_is_too_much() -> None:
    chance = random.Random(5)
    tags = [
        "div",
        "span",
        "p",
        "td",
        "tr",
        "table",
        "blockquote",
        "a",
        "font",
        "b",
        "ul",
        "li",
        "pre",
        "br",
        "input",
        "script",
        "style",
        "title",
        "img",
        "hr",
    ]
    attributes = [
        'style="display:none"', 'style="font-size:0;color:red"', 'style="color:#fff"', 'style="border-left:1px"',
        'style="background:#000;color:#000"', 'class="hid gmail_quote"', 'class="gmail_signature"', 'id="divRplyFwdMsg"',
        "hidden", 'type="cite"', 'bgcolor="#ffffff"', 'color="transparent"', 'name="quote"', 'background="x.png"',
    ]  # fmt: skip
    ends = ["", " tail", "\n", "<!-- c -->", "<!-- c --> f", "<?pi q?>", "12:30 a@b:"]

    def some(depth: int) -> str:
        made = ""
        for _ in range(chance.randint(1, 4)):
            tag, marks = chance.choice(tags), chance.sample(attributes, chance.randint(0, 2))
            inner = (
                some(depth + 1) if depth < 5 and chance.random() < 0.6 else chance.choice(["text ", *ends])
            )
            closed = f"</{tag}>" if chance.random() < 0.9 else ""
            made += f"<{tag} {' '.join(marks)}>{inner}{closed}{chance.choice(ends)}"
        return made

    for _ in range(1500):
        document = "<style>.hid{display:none}</style>" + some(0)
        seen = visible_text(document)
        assert "\ue000" not in seen.text
        assert "\ue001" not in seen.text
        assert not seen.simplified
