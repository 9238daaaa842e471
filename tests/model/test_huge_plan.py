"""Huge pages are given back from the cheapest on, no more than fits, and no dense ones."""

from hypothesis import given
from hypothesis import strategies as st

from ksmtuned_py.model.hugeplan import BINS, DENSE, Portion, Survey, bound, together

PAGES = 512
surveys = st.builds(
    Survey,
    range_pages=st.just(PAGES),
    huge=st.integers(0, 100),
    left=st.integers(0, 100),
    split=st.lists(st.integers(0, 50), max_size=PAGES + 1).map(tuple),
)
rooms = st.integers(-1000, 100_000)


@given(surveys, rooms)
def test_what_is_given_back_fits_and_is_not_dense(survey: Survey, room: int) -> None:
    most = bound(survey, room)
    assert -1 <= most <= DENSE * PAGES
    assert survey.paid_pages(most) <= max(0, room)


@given(surveys, rooms)
def test_no_more_would_fit(survey: Survey, room: int) -> None:
    most = bound(survey, room)
    assert (most == -1) == (room < 0)
    assert room < 0 or most == DENSE * PAGES or survey.paid_pages(most + 1) > room


@given(surveys, rooms, st.integers(0, 1000))
def test_with_more_room_no_less_is_given_back(survey: Survey, room: int, more: int) -> None:
    assert bound(survey, room + more) >= bound(survey, room)


@given(surveys)
def test_every_split_range_is_in_one_column(survey: Survey) -> None:
    assert len(survey.histogram()) == len(BINS)
    assert sum(survey.histogram()) == sum(survey.split)
    assert min(survey.histogram()) >= 0


@given(st.lists(surveys, min_size=1), st.integers(-1, PAGES))
def test_several_guests_together_have_what_each_has(each: list[Survey], most: int) -> None:
    all_of_them = together(each)
    assert all_of_them.huge == sum(one.huge for one in each)
    assert all_of_them.left == sum(one.left for one in each)
    assert all_of_them.ranges(most) == sum(one.ranges(most) for one in each)
    assert all_of_them.paid_pages(most) == sum(one.paid_pages(most) for one in each)


@given(st.lists(surveys, min_size=2), rooms)
def test_no_guests_range_goes_before_a_cheaper_one_of_another(each: list[Survey], room: int) -> None:
    most = bound(together(each), room)
    given_back = [merged for one in each for merged, count in enumerate(one.split) if count and merged <= most]
    kept = [merged for one in each for merged, count in enumerate(one.split) if count and merged > most]
    assert not given_back or not kept or max(given_back) < min(kept)


def test_ranges_without_merged_pages_cost_nothing() -> None:
    assert bound(Survey(range_pages=PAGES, split=(7, 3)), 2) == 0
    assert bound(Survey(range_pages=PAGES, split=(7, 3)), 3) == DENSE * PAGES


def test_portions_add_up_and_say_how_it_is_now() -> None:
    both = Portion(given=1, paid=5, cpu_seconds=0.5).plus(Portion(given=2, failed=1, more=False, problem="gone"))
    assert both == Portion(given=3, paid=5, failed=1, more=False, problem="gone", cpu_seconds=0.5)
