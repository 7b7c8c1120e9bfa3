"""What strangers sent, handed on: downloads with safe names, and HTML behind a policy of its own."""

import re
from collections.abc import Iterator
from email.message import EmailMessage
from time import perf_counter
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from briefbox.db import Database
from briefbox.errors import MailboxError
from briefbox.settings import Settings
from briefbox.tables import User
from desk.agents.clean_html import clean
from desk.app import create_app
from desk.file_names import as_attachment, safe_name
from desk.security import CONTENT_SECURITY_POLICY, sandboxed
from desk.tools import Tools
from tests.desk.conftest import Inbox, browser, session_for

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def mail(html: str = "<p>Hello <b>you</b></p>", *files: tuple[str, bytes]) -> bytes:
    """A mail with HTML and attachments."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "vera@example.org", "s@larkspur.example", "It"
    message.set_content("Hello")
    message.add_alternative(html, subtype="html")
    for name, data in files:
        message.add_attachment(data, maintype="text", subtype="html", filename=name)
    return message.as_bytes()


# --- attachments


def test_an_attachment_is_a_download_and_nothing_else(inbox: Inbox, as_ana: TestClient) -> None:
    email = inbox.arrive(mail("<p>x</p>", ("bill.html", b"<script>1</script>"), ("two.txt", b"second")))
    page = as_ana.get(f"/conversations/{email.conversation_id}").text
    assert f'href="/emails/{email.id}/attachments/1" download' in page
    answer = as_ana.get(f"/emails/{email.id}/attachments/0")
    assert answer.content == b"<script>1</script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith('attachment; filename="bill.html"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert as_ana.get(f"/emails/{email.id}/attachments/1").content == b"second"
    for address in (
        f"/emails/{email.id}/attachments/2",
        "/emails/999/attachments/0",
        "/emails/1/attachments/x",
    ):
        answer = as_ana.get(address)
        assert answer.status_code == 404
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("bill.pdf", "bill.pdf"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\x.exe", "x.exe"),
        ("annex\u202efdp.exe", "annexfdp.exe"),
        ('a"; filename="evil.html', "a_ filename=_evil.html"),
        ("a\r\nSet-Cookie: x=1.txt", "aSet-Cookie_ x=1.txt"),
        ("nul\0.txt", "_nul.txt"),
        ("CON", "_CON"),
        ("com1.txt", "_com1.txt"),
        (".htaccess", "htaccess"),
        ("\u200b.htaccess", "htaccess"),
        ("  . . ", "attachment"),
        ("", "attachment"),
        ("Rechnung für März.pdf", "Rechnung für März.pdf"),
        ("請求書.pdf", "請求書.pdf"),
        ("<img src=x onerror=alert(1)>.png", "_img src=x onerror=alert(1)_.png"),
    ],
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe
    header = as_attachment(name)
    header.encode("ascii")
    assert not re.search(r"[\r\n\0\\]", header)
    assert header.count('"') == 2
    assert unquote(header.partition("UTF-8''")[2]) == safe


def test_a_very_long_name_keeps_its_end() -> None:
    assert len(safe_name("x" * 5000 + ".pdf")) == 120
    assert safe_name("x" * 5000 + ".pdf").endswith(".pdf")
    assert len(safe_name("x." + "y" * 5000)) == 120


class AwayReader:
    """A reader whose server does not answer."""

    def attachment(self, email_id: int, number: int) -> tuple[str, Iterator[bytes]]:
        def pieces() -> Iterator[bytes]:
            raise MailboxError("secret-host.example refused the login of secret-user")
            yield b""

        return f"film-{email_id}-{number}.mp4", pieces()

    def original_html(self, email_id: int) -> str | None:
        return None if email_id else ""

    def inline_images(self, email_id: int) -> dict[str, str]:
        return {} if email_id else {"x": ""}


def test_a_server_that_is_away_is_said_in_words(
    inbox: Inbox, database: Database, settings: Settings, ana: User, ada: User
) -> None:
    email = inbox.arrive(mail())
    app: FastAPI = create_app(database, settings, Tools(reader=AwayReader()))
    answer = browser(app, session_for(database, ana)).get(f"/emails/{email.id}/attachments/0")
    assert answer.status_code == 503
    assert f"“film-{email.id}-0.mp4” stayed on the mail server" in answer.text
    assert "secret" not in answer.text
    assert (
        "secret-host"
        in browser(app, session_for(database, ada)).get(f"/emails/{email.id}/attachments/0").text
    )


def test_a_desk_without_a_reader_says_so(
    database: Database, settings: Settings, inbox: Inbox, ana: User
) -> None:
    email = inbox.arrive(mail())
    client = browser(create_app(database, settings), session_for(database, ana))
    for name in ("original", "attachments/0"):
        answer = client.get(f"/emails/{email.id}/{name}")
        assert answer.status_code == 404
        assert "started without access" in answer.text


# --- the original


def test_the_original_has_a_policy_of_its_own_and_no_other_page_has(inbox: Inbox, as_ana: TestClient) -> None:
    email = inbox.arrive(mail('<p style="color:red">Hello <a href="https://evil.example/x">bank</a></p>'))
    answer = as_ana.get(f"/emails/{email.id}/original")
    assert answer.headers["content-security-policy"] == (
        "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'self'"
    )
    assert "cross-origin-opener-policy" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert '<span class="link">bank</span><span class="leads-to"> (evil.example)</span>' in answer.text
    assert "href" not in answer.text
    for address in (
        "/",
        f"/conversations/{email.conversation_id}",
        "/emails/999/original",
        "/static/desk.css",
    ):
        other = as_ana.get(address)
        assert other.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert other.headers["cross-origin-opener-policy"] == "same-origin"


def test_a_policy_that_is_no_sandbox_is_refused() -> None:
    with pytest.raises(ValueError, match="no sandbox"):
        sandboxed(None, None, "default-src 'none'; script-src 'unsafe-inline'")  # type: ignore[arg-type]


def test_pictures_of_the_mail_are_shown_and_those_of_others_are_not(inbox: Inbox, as_ana: TestClient) -> None:
    message = EmailMessage()
    message["From"], message["Subject"] = "vera@example.org", "Pictures"
    message.set_content("See")
    message.add_alternative(
        '<img src="cid:a@x" alt="mine"><img src="cid:s@x"><img src="http://e.example/t.gif">', subtype="html"
    )
    html = message.get_payload()[1]  # type: ignore[index]
    assert isinstance(html, EmailMessage)
    html.add_related(PNG, "image", "png", cid="<a@x>")
    html.add_related(b"<svg onload='1'/>", "image", "svg+xml", cid="<s@x>")
    email = inbox.arrive(message.as_bytes())
    page = as_ana.get(f"/emails/{email.id}/original").text
    assert page.count('src="data:image/png;base64,') == 1
    assert page.count("src=") == 1
    assert "e.example" not in page


def test_a_mail_without_html_says_so(inbox: Inbox, as_ana: TestClient) -> None:
    email = inbox.arrive(b"From: vera@example.org\nSubject: plain\n\nJust words.\n")
    assert "it has no HTML" in as_ana.get(f"/emails/{email.id}/original").text


HOSTILE = [
    "<script>window.__xss=1</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    "<svg onload=window.__xss=1><script>window.__xss=1</script></svg>",
    "<svg><a xlink:href='javascript:window.__xss=1'><text y=20>x</text></a></svg>",
    "<svg><animate href=#x attributeName=href values=javascript:window.__xss=1 /><a id=x>y</a></svg>",
    "<svg></p><style><a id='</style><img src=1 onerror=window.__xss=1>'>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.__xss=1&gt;'>",
    "<math><annotation-xml encoding='text/html'><script>window.__xss=1</script></annotation-xml></math>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=window.__xss=1>",
    "<noscript><p title='</noscript><img src=x onerror=window.__xss=1>'>",
    "<img src=x onerror=window.__xss=1>",
    "<img src=http://evil.example/pixel.gif width=1 height=1>",
    "<img srcset='http://evil.example/a.png 1x'>",
    '<img src=\'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" onload="window.__xss=1"/>\'>',
    "<picture><source srcset=http://evil.example/p.png><img></picture>",
    "<video src=http://evil.example/v.mp4 autoplay poster=http://evil.example/p.png></video>",
    "<audio src=http://evil.example/a.mp3 autoplay></audio>",
    "<iframe src=http://evil.example/></iframe>",
    "<iframe srcdoc='<script>parent.__xss=1</script>'></iframe>",
    "<object data=http://evil.example/o.swf></object><embed src=http://evil.example/e.swf>",
    "<style>@import url(http://evil.example/a.css); body{background:url(http://evil.example/b.png)}</style>",
    "<link rel=stylesheet href=http://evil.example/l.css><link rel=prefetch href=http://evil.example/>",
    "<div style=\"background:url('http://evil.example/bg.png')\">x</div>",
    "<div style='background:\\75rl(http://evil.example/esc.png)'>x</div>",
    "<div style='width:expression(window.__xss=1);behavior:url(x.htc)'>x</div>",
    "<div style='position:fixed;inset:0;z-index:9999;background:#fff'>Sign in again</div>",
    "<table background=http://evil.example/t.png><tr><td background=http://evil.example/td.png>x</table>",
    "<base href=http://evil.example/><a href=x>y</a>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<form action=http://evil.example/ id=f><input name=q value=1 autofocus onfocus=window.__xss=1></form>",
    "<button formaction=javascript:window.__xss=1 form=f>go</button><input type=image src=http://evil.example/i.png>",
    "<a href=javascript:window.__xss=1>click</a><a href='jav&#x09;ascript:window.__xss=1'>click</a>",
    "<a href=data:text/html,<script>window.__xss=1</script>>click</a>",
    "<a href=http://evil.example/ ping=http://evil.example/ping target=_top>click</a>",
    "<body onload=window.__xss=1 background=http://evil.example/body.png><p>x</p>",
    "<details open ontoggle=window.__xss=1><summary>x</summary></details>",
    "<marquee onstart=window.__xss=1>x</marquee>",
    "<xmp><p title='</xmp><svg/onload=window.__xss=1>'></xmp>",
    "<template><script>window.__xss=1</script></template>",
    "<select><style></select><img src=x onerror=window.__xss=1></style></select>",
    "<title><a title='</title><img src onerror=window.__xss=1>'>",
    "<textarea><img title='</textarea><img src onerror=window.__xss=1>'>",
    "<!--><img src=x onerror=window.__xss=1>-->",
    "<!--[if IE]><script>window.__xss=1</script><![endif]-->",
    "<![CDATA[<img src=x onerror=window.__xss=1>]]>",
    "<?xml-stylesheet href=http://evil.example/x.xsl?><p>x</p>",
    "<p title='a\" onmouseover=window.__xss=1 b=\"'>x</p><p/onmouseover=window.__xss=1>x</p>",
    '<img/src="x"/onerror=window.__xss=1//',
    "<div id=news name=news class=alert>You are signed out</div><a id=help-button>x</a>",
    "<b\0><scr\0ipt>window.__xss=1</scr\0ipt>",
    "<p dir=rtl>\u202e\u2066 desrever </p>" + "\u202e" * 200,
    "<div>" * 5000 + "deep",
    "<p>" + "W" * 20000 + "</p>",
    "<table><td>" * 2000 + "cells",
    "<font color=red>" * 3000 + "<p>x" * 3000,
    "<img alt='" + "x" * 5000 + "' width=99999 height=99999>",
]


@pytest.mark.parametrize("html", HOSTILE)
def test_nothing_hostile_is_left_of_the_html(html: str) -> None:
    started = perf_counter()
    cleaned = clean(html, {})
    assert perf_counter() - started < 3
    # Of every tag that is left, its name and its attributes; the words between are text.
    for name, attributes in re.findall(r"<([a-z0-9/!?]+)((?:[^>\"]|\"[^\"]*\")*)>", cleaned):
        assert name.lstrip("/") not in {
            "script",
            "style",
            "svg",
            "math",
            "iframe",
            "form",
            "input",
            "a",
            "base",
        }
        for attribute, value in re.findall(r"\s([a-z-]+)=\"([^\"]*)\"", attributes):
            assert not attribute.startswith("on")
            assert attribute not in {"src", "href", "srcset", "action", "background", "id", "name"}
            assert attribute != "style" or not re.search(r"url|\(|\\|position|z-index", value)
    assert "<!--" not in cleaned


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 200_000,
        "<div></span>" * 80_000,
        "<div><table></div></table>" * 40_000,
        "".join(f"<font color={n}><table><td></font></td></table>" for n in range(9_000)) + "<p>x" * 100_000,
        '<a "' * 250_000,
        "<svg>" * 200_000,
        "<!--" * 250_000,
        "&" * 1_000_000,
        "&#x" * 300_000,
        "<b><p>" * 100_000,
        "<a b=" * 200_000,
    ],
)
def test_what_is_made_to_be_slow_is_not(html: str) -> None:
    started = perf_counter()
    clean(html, {})
    assert perf_counter() - started < 10  # without the limits: minutes


def test_ordinary_html_stays_as_it_looks() -> None:
    html = (
        "<html><head><title>x</title><style>p{color:red}</style></head><body style='color:#333'>"
        "<p>One<p>Two <b>bold <i>both</b> it</i><ul><li>a<li>b</ul><table width=600 bgcolor='#eee'><tr><td>1<td>2</table>"
        "1 < 2 &amp; 3 &copy; <a href='mailto:bob@example.org?subject=x'>Bob</a></body></html>"
    )
    assert clean(html, {}) == (
        '<div style="color:#333"><p>One</p><p>Two <b>bold <i>both</i></b> it</p><ul><li>a</li><li>b</li></ul>'
        '<table width="600" bgcolor="#eee"><tbody><tr><td>1</td><td>2</td></tr></tbody></table>'
        '1 &lt; 2 &amp; 3 © <span class="link">Bob</span><span class="leads-to"> (bob@example.org)</span></div>'
    )
