"""What merging could save at best. Pure."""

from collections import Counter
from collections.abc import Iterable

from ksmtuned_py.ksmdmodel.contents import ZERO_CONTENT
from ksmtuned_py.ksmdmodel.guestmemory import PageGroup


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
    copies_until = Counter[int]()  # of all contents before that one
    for group in groups:
        rows, more = divmod(group.pages, _distinct(group))
        copies_until[_distinct(group)] += rows
        copies_until[more] += 1
    saved = begin = 0
    copies = copies_until.total()
    for end in sorted(copies_until):
        saved += (end - begin) * (copies - -(-copies // max_page_sharing))
        copies, begin = copies - copies_until[end], end
    return saved


def _distinct(group: PageGroup) -> int:
    return min(group.distinct or group.pages, group.pages)
