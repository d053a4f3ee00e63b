"""Names from outside in Markdown: a CommonMark renderer shows them as they are, and makes nothing of them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flows.links import cell, page, served, text

# CommonMark with GitHub's tables and strike-through: what both of Prefect's pages understand.
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = [
    "a | b",
    r"a\|b",
    "`code`",
    "<script>alert(1)</script>",
    "<!-- hidden",
    "[x](javascript:alert(1))",
    "![x](http://host/pixel.png)",
    "[x][y]",
    "[x]: http://host",
    "one\ntwo\r\n\n    three\u2028four\tfive",
    "http://host/a?b=c&d=e#f",
    "<http://host>",
    "me@host.org",
    "# heading",
    "heading\n===",
    "heading\n---",
    "back\\slash\\",
    "\\",
    "* item",
    "- item",
    "+ item",
    "1. item",
    "1) item",
    "> quoted",
    "***",
    "___",
    "~~~",
    "~~gone~~",
    "*_bold_*",
    "snake_case__name",
    "_edges_",
    "a/_edges_/b",
    "www.host.org",
    "&lt;b&gt; &#35; &amp;copy;",
    "$x^2$",
    ":smile:",
    "|---|---|",
    "- [ ] to do",
    "[^1]",
]
# A renderer shows U+FFFD for NUL, which no file system and no URL lets into a name; halves of pairs are no text.
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.text(
    "\\`*_{}[]()#+-.!|<>~&$ 1a\n"
)


class Shown(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        self.text += data


def render(markdown: str) -> Shown:
    return Shown(MARKDOWN.render(markdown))


def collapsed(value: str) -> str:
    return " ".join(value.split())


def hostile(test):
    for name in HOSTILE:
        test = example(name)(test)
    return test


@hostile
@given(names)
def test_text_of_any_name_shows_the_name_in_one_line_and_is_nothing_but_text(name: str):
    shown = render(text(name))
    assert shown.elements == (["p"] if collapsed(name) else [])
    assert shown.text.removesuffix("\n") == collapsed(name)


@hostile
@given(names)
def test_text_stays_in_its_cell_of_a_table(name: str):
    shown = render(f"| a | b |\n|---|---|\n| {text(name)} | after |")
    assert shown.elements == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert [line for line in shown.text.split("\n") if line] == ["a", "b", *filter(None, [collapsed(name)]), "after"]


@hostile
@given(names)
def test_text_in_a_list_a_quotation_and_a_link_makes_nothing_of_its_own(name: str):
    assert render(f"* {text(name)}: 3 images").elements == ["ul", "li"]
    assert render(f"> {text(name)} x").elements == ["blockquote", "p"]
    linked = render(f"[{text(name)}](http://host/a)")
    assert (linked.elements, linked.links) == (["p", "a"], ["http://host/a"])
    assert linked.text.strip() == collapsed(name)


@hostile
@given(names)
def test_cell_of_any_name_renders_to_the_name(name: str):
    """Where a page shows cells as Markdown: within the line of a table."""
    shown = Shown(MARKDOWN.renderInline(cell(name)))
    assert (shown.elements, shown.text) == ([], collapsed(name))


@pytest.mark.parametrize(
    "name",
    [
        "parts/left 2/IMG_0041.png",
        "good-01.png",
        "a,b;c.jpg",
        "snake_case_1.png",
        "100 % (new)+1=2 @home",
        "Größe/写真.png",
        "",
    ],
)
def test_everyday_name_stays_as_it_is_in_a_cell(name: str):
    """One of Prefect's pages shows cells as they are."""
    assert cell(name) == name


@pytest.mark.parametrize("name", ["a|b", "a*b*", "__init__", "_x_.png", "a/_x_", "<b>", "a`b", "[a](b)", "a\\b"])
def test_name_that_markdown_would_read_is_escaped_in_a_cell(name: str):
    assert cell(name) == text(name) != name


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("/reports/b/0f/report.html", "https://host/base/reports/b/0f/report.html"),
        ("/reports/a b/ü?x#y%20.png", "https://host/base/reports/a%20b/%C3%BC%3Fx%23y%2520.png"),
        ("/reports/(x)[y]<z>.png", "https://host/base/reports/%28x%29%5By%5D%3Cz%3E.png"),
    ],
)
def test_file_in_a_served_store_has_an_address(tmp_path: Path, uri: str, address: str):
    """However the store is named: as a path, with a slash, or as a URI."""
    for store in (str(tmp_path), f"{tmp_path}/", f"file://{tmp_path}"):
        assert served(f"file://{tmp_path}{uri}", store, "https://host/base") == address
        assert served(f"file://{tmp_path}{uri}", store, None) is None


def test_file_in_a_served_bucket_has_an_address_below_its_store():
    assert served("s3://bucket/dn2/reports/r/report.html", "s3://bucket/dn2", "http://h:1") == (
        "http://h:1/reports/r/report.html"
    )


@given(names.map(lambda name: name.replace("/", "")).filter(bool))
def test_page_in_a_served_store_is_one_link_that_leads_to_its_name(name: str):
    """And no name can end the link, or make another one."""
    shown = render(page(f"file:///store/reports/{name}", "/store", "http://host"))
    assert (shown.elements, shown.text, len(shown.links)) == (["p", "a"], "open the report\n", 1)
    address = urlsplit(shown.links[0])
    assert (address.scheme, address.netloc, address.query, address.fragment) == ("http", "host", "", "")
    assert unquote(address.path) == f"/reports/{name}"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("file:///data/my store/report.html", "/data/my store/report.html"),
        ("file:///data/[x](y)|/report.html", "/data/[x](y)|/report.html"),
        ("s3://bucket/dn2/report.html", "s3://bucket/dn2/report.html"),
    ],
)
def test_page_in_a_store_that_is_not_served_is_text(uri: str, shown: str):
    """A browser does not follow file:// from a page of a server, and knows no s3://."""
    found = render(page(uri, "/data", None))
    assert (found.elements, found.text.strip(), found.links) == (["p"], shown, [])


def test_every_mark_of_ascii_is_shown_without_a_backslash():
    for mark in map(chr, range(33, 127)):
        assert render(f"a{text(mark)}").text == f"a{mark}\n"


@pytest.mark.parametrize(
    "name", ["www.host.org", "http://host.org", "https://host.org", "ftp://host.org", "me@host.org"]
)
def test_nothing_is_left_of_what_github_makes_links_of_without_being_asked(name: str):
    """This renderer does not, but Prefect's pages do."""
    assert re.search(r"www\.|\w://|\w@", name)
    assert not re.search(r"www\.|\w://|\w@", text(name))
