"""What merging could save at best. Pure."""

from collections.abc import Iterable

from ksmtuned_py.ksmdmodel.contents import ZERO_CONTENT
from ksmtuned_py.ksmdmodel.guestmemory import PageGroup
from ksmtuned_py.ksmdmodel.runs import Runs


def mergeable_pages(specs: Iterable[PageGroup], max_page_sharing: int, *, use_zero_pages: bool) -> int:
    """Pages saved when every equal page is merged: all but one of each max_page_sharing, or all on the zero page."""
    of_content: dict[str, list[PageGroup]] = {}
    for spec in specs:
        if spec.content:
            of_content.setdefault(spec.content, []).append(spec)
    saved = 0
    for content, groups in of_content.items():
        if use_zero_pages and content == ZERO_CONTENT:
            saved += sum(group.pages for group in groups)
        else:
            saved += _saved(groups, max_page_sharing)
    return saved


def _saved(groups: list[PageGroup], max_page_sharing: int) -> int:
    copies = Runs(max(_distinct(group) for group in groups), 0)
    for group in groups:
        rows, more = divmod(group.pages, _distinct(group))
        _add(copies, _distinct(group), rows)
        _add(copies, more, 1)
    whole = copies.between(0, copies.length)
    return sum((end - begin) * (count - -(-count // max_page_sharing)) for begin, end, count in whole)


def _distinct(group: PageGroup) -> int:
    return min(group.distinct or group.pages, group.pages)


def _add(copies: Runs[int], end: int, more: int) -> None:
    for first, last, count in copies.between(0, end):
        copies.put(first, last, count + more)
