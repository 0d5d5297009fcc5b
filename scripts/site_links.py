"""A hook of mkdocs: links from the documents to files beside them (source, tests) are plain text on the site.

A reader of the repository can follow them. The site has no copy of these files. That they exist is checked by
`tests/unit/test_documents.py`.
"""

from __future__ import annotations

import re
from posixpath import dirname, join, normpath
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^()\s:]+)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page's text without links that leave the folder of the documents."""

    def shown(link: re.Match[str]) -> str:
        target = normpath(join(dirname(page.file.src_uri), link[2]))
        return link[1] if target.startswith("..") else link[0]

    return LINK.sub(shown, markdown)
