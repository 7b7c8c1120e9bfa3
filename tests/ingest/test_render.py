"""HTML as text: lines, lists, tables, and where links lead."""

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
