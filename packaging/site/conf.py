"""The documentation as a site, by Sphinx.

    .venv/bin/sphinx-build --fail-on-warning --keep-going -c packaging/site . build/site

The pages are the Markdown files as they stand in the repository. What is beside the text on each page, the navigation,
is made from the tables of docs/index.md.
"""

import re
from typing import Any

INDEX = "docs/index"
PART = re.compile(r"^## (.+)$", re.MULTILINE)
PAGE = re.compile(r"\]\(([^)#:]+)\.md\)")
CAPTION = "Begin here"

project = "ksmtuned-py"
root_doc = INDEX
include_patterns = ["*.md", "docs/**.md", "packaging/zram.md"]
exclude_patterns = [".*", "build", "ksmtuned_py", "tests", "bench"]
extensions = ["myst_parser"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = project
html_extra_path = ["index.html"]
smartquotes = False  # an option keeps both its dashes
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False


def navigation(index: str) -> str:
    """Returns the index with a hidden list of its pages for each of its parts; each page is listed once."""
    parts = PART.split(f"## {CAPTION}\n{index}")[1:]
    listed: set[str] = set()
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        pages = [page for page in dict.fromkeys(PAGE.findall(text)) if page not in listed]
        listed.update(pages)
        index = "\n".join([index, "```{toctree}", ":hidden:", f":caption: {title}", *pages, "```", ""])
    return index


def _add_navigation(_app: Any, name: str, source: list[str]) -> None:
    if name == INDEX:
        source[0] = navigation(source[0])


def setup(app: Any) -> None:
    """Tells Sphinx of what is done here."""
    app.connect("source-read", _add_navigation)
