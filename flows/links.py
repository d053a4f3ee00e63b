"""Names and places as Markdown that shows them as they are: every name comes from outside."""

from __future__ import annotations

import re
from urllib.parse import quote

import dn2


def text(value: object) -> str:
    """Return any text as Markdown that shows it, in one line: no name makes a link, a picture or a table cell."""
    line = " ".join(str(value).split())
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~&$^:@=.-])", r"\\\1", line)


def cell(value: object) -> str:
    """Return any text for a cell of a table artifact, which one of Prefect's two pages shows as Markdown, one as it is.

    Everyday names stay as they are, and read well on both. Others are escaped: they show backslashes on one of them.
    """
    line = " ".join(str(value).split())
    return line if re.fullmatch(r"(?:[^\W_]|(?<=[^\W_])_(?=[^\W_])|[./ :,;%@=+()-])*", line) else text(line)


def served(uri: str, store: str, base_url: str | None) -> str | None:
    """Return the web address of a file in the store, or None if the store is not served.

    Args:
        uri: absolute URI of the file.
        store: folder or URL of the store.
        base_url: web address under which the store is served.
    """
    if base_url is None:
        return None
    below = uri.removeprefix(f"{dn2.Store.open(store).uri}/")
    return f"{base_url}/{quote(below)}"


def page(uri: str, store: str, base_url: str | None) -> str:
    """Return a link to a report's page where the store is served, else its place: browsers follow no file links."""
    address = served(uri, store, base_url)
    return f"[open the report]({address})" if address else text(uri.removeprefix("file://"))
