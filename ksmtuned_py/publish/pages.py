"""Keeps the files of the page in memory, as they are served."""

from pathlib import Path

from ksmtuned_py.publish.answers import JSON, TEXT, Answer, kept

FOLDER = Path(__file__).parent / "page"
API = Path(__file__).parent / "openapi.json"
HTML = "text/html; charset=utf-8"
KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": HTML,
    ".js": "text/javascript; charset=utf-8",
    ".json": JSON,
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": TEXT,
}
"""What is served, and as what. Other files are not."""
PLAIN = b"<!doctype html><title>ksmtuned-py</title><h1>ksmtuned-py</h1><p><a href=/metrics>Metrics</a></p>\n"
"""The first page where the page's files are missing."""


def pages(folder: Path = FOLDER) -> dict[str, Answer]:
    """All files by their addresses. What is asked for is looked up here, so no address leads to another file."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {f"/static/{file.name}": _page(file) for file in files if file.suffix in KINDS}
    first = found.pop("/static/index.html", None) or kept(PLAIN, HTML)
    return {**found, "/": first, "/api/v1/openapi.json": _page(API)}


def _page(file: Path) -> Answer:
    return kept(file.read_bytes(), KINDS[file.suffix])
