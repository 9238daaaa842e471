"""The configuration's files are layered, know the place of each key, and report every mistake at once."""

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksmtuned_py.config import Config
from ksmtuned_py.configfile.lines import KeyPath, key_lines
from ksmtuned_py.configfile.load import ORDERED, ConfigErrors, Loaded, changed_keys, load
from ksmtuned_py.configfile.source import DEFAULT_FILE, ConfigError
from ksmtuned_py.configfile.text import dotted, flat, render_effective, toml_value
from ksmtuned_py.configfile.wanted import REMOVED, adds_up, known_keys

KEYS = {dotted(path): value for path, value in flat(Config().model_dump())}

WINDOW = "two local times HH:MM-HH:MM that differ (00:00-24:00: always)"


def write(directory: Path, text: str | bytes = "", **drop_ins: str | bytes) -> Path:
    """Write a main file and its drop-ins; bytes are written as they are."""
    main = directory / "config.toml"
    main.write_bytes(text if isinstance(text, bytes) else text.encode())
    for name, content in drop_ins.items():
        path = directory / "config.d" / f"{name}.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return main


def refused(main: Path, config_dir: Path | None = None) -> tuple[ConfigError, ...]:
    """The mistakes that load finds in the files."""
    try:
        load(main, config_dir)
    except ConfigErrors as errors:
        return errors.errors
    return ()


def mistakes(main: Path, config_dir: Path | None = None) -> list[str]:
    """The mistakes that load finds, as text without the directory."""
    return [str(error).replace(f"{main.parent}/", "") for error in refused(main, config_dir)]


@contextmanager
def nobody() -> Iterator[None]:
    """Drop root's rights for a while, because root may read everything."""
    before = os.geteuid()
    os.seteuid(before or 65534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path)).config == Config()


def test_the_default_file_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "50.toml").write_text('daemon.mode = "observe"')
    loaded = load(None, tmp_path)
    assert loaded.config.daemon.mode == "observe"
    assert loaded.files == (*([str(DEFAULT_FILE)] if DEFAULT_FILE.exists() else []), str(tmp_path / "50.toml"))


def test_what_was_named_may_not_be_missing(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "none.toml", tmp_path / "none") == [
        "none.toml: wanted a readable file (No such file or directory)",
        "none: wanted a readable directory (No such file or directory)",
    ]


def test_drop_ins_win_key_by_key_in_the_order_of_their_names(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        '[daemon]\nmode = "observe"\ntick_seconds = 2\n',
        a10="[daemon]\ntick_seconds = 3\nidle_tick_seconds = 30",
        a9="[daemon]\ntick_seconds = 4",
    )
    loaded = load(main)
    daemon = loaded.config.daemon
    assert (daemon.mode, daemon.tick_seconds, daemon.idle_tick_seconds) == ("observe", 4, 30)
    assert loaded.origins["daemon.mode"] == str(main)
    assert loaded.place("daemon.tick_seconds") == f"{tmp_path}/config.d/a9.toml:2"
    assert loaded.place("daemon.idle_tick_seconds") == f"{tmp_path}/config.d/a10.toml:3"
    assert loaded.origins["daemon.on_exit"] == loaded.place("daemon.on_exit") == "default"


ARRAYS_OF_TABLES = {
    "guests.rule": [{"name": name, "merge": "no"} for name in ("a-*", "b-*", "c-*")],
    "doctor.accept": [{"code": "swap_off", "reason": reason} for reason in ("a", "b", "c")],
}


def test_these_are_all_lists_of_tables() -> None:
    assert {key for key in known_keys() if adds_up(tuple(key.split(".")))} == set(ARRAYS_OF_TABLES)


@pytest.mark.parametrize(("key", "tables"), ARRAYS_OF_TABLES.items())
def test_lists_of_tables_add_up_in_the_order_of_the_files(
    tmp_path: Path, key: str, tables: list[dict[str, str]]
) -> None:
    first, second, third = (f"{key} = [{toml_value(table)}]\n" for table in tables)
    loaded = load(write(tmp_path, first, b10=second, b20=f"\n{third}", b30=f"{key} = []\n"))
    section, name = key.split(".")
    found = getattr(getattr(loaded.config, section), name)
    assert [{each: getattr(table, each) for each in tables[0]} for table in found] == tables
    directory = tmp_path / "config.d"
    places = [tmp_path / "config.toml:1", directory / "b10.toml:1", directory / "b20.toml:2", directory / "b30.toml:1"]
    assert loaded.place(key) == ", ".join(map(str, places))
    assert f"# {loaded.place(key)}\n" in render_effective(loaded.config, loaded.place)


def test_other_lists_replace_one_another(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, 'guests.name_patterns = ["a"]\n', b10='guests.name_patterns = ["b"]\n'))
    assert loaded.config.guests.name_patterns == ("b",)


def test_a_mistake_in_a_list_that_adds_up_is_told_with_its_own_file_and_line(tmp_path: Path) -> None:
    good, bad = "[[guests.rule]]\nname = 'a'\n", "[[guests.rule]]\nname = 'b'\nmerge = 'never'\n"
    assert mistakes(write(tmp_path, good, b10=bad)) == [
        'config.d/b10.toml:3: guests.rule[0].merge = "never": wanted one of yes, no, keep'
    ]


def test_one_number_of_an_inline_table_can_be_set_alone(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "[adaptive]\nquiet.boost_percent.calm = 7\n"))
    before, after = Config().adaptive.quiet.boost_percent, loaded.config.adaptive.quiet.boost_percent
    assert after == before.model_copy(update={"calm": 7.0})
    assert loaded.place("adaptive.quiet.boost_percent.calm").endswith("config.toml:2")


def test_only_toml_files_that_are_not_hidden_are_drop_ins(tmp_path: Path) -> None:
    main = write(tmp_path, a="", b="")
    for name in (".a.toml.swp", ".#a.toml", "README", "a.toml~", "a.toml.dpkg-old"):
        (tmp_path / "config.d" / name).write_text("not TOML")
    assert [Path(file).name for file in load(main).files] == ["config.toml", "a.toml", "b.toml"]


def test_bom_and_crlf_are_taken(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, b'\xef\xbb\xbf[daemon]\r\n\r\nmode = "observe"\r\n'))
    assert loaded.config.daemon.mode == "observe"
    assert loaded.place("daemon.mode").endswith("config.toml:3")


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        """\
tick_seconds = 3
[daemon]
mode = "watch"  # neither
pressure_trigger_ms = 1.5
[adaptive]
profile = "fast"
need.wary_enter_percent = 200
quiet.boost_percent = { calm = 1, wary = 300, critcal = 3 }
[adaptive.guards]
inhibit = [
  # mornings
  "08:00-10:00",

  "noon",
  3,
]
[adaptve]
x = 1
[kernel]
max_page_sharing = 1
[ksmtuned]
npages_min = 2000
sleep_msec = inf
[metrics]
address = '''
localhost'''
[guests]
name_patterns = "qemu"
mergeable = 1
""",
        b="[adaptive.need]\nshort_leave_percent = 12\n",
    )
    boost = "adaptive.quiet.boost_percent"
    assert mistakes(main) == [
        "config.toml:1: tick_seconds = 3: wanted a key that exists: did you mean daemon.tick_seconds?",
        'config.toml:3: daemon.mode = "watch": wanted manage or observe',
        "config.toml:4: daemon.pressure_trigger_ms = 1.5: wanted a whole number from 0 to 1000 (milliseconds)",
        'config.toml:6: adaptive.profile = "fast": wanted one of quiet, balanced, eager',
        "config.toml:7: adaptive.need.wary_enter_percent = 200: wanted a number from 0 to 100 (percent)",
        f"config.toml:8: {boost}.wary = 300: wanted 0, or a number from 1 to 100 (percent)",
        f"config.toml:8: {boost}.critcal = 3: wanted a key that exists: did you mean {boost}.critical?",
        f'config.toml:14: adaptive.guards.inhibit[1] = "noon": wanted {WINDOW}',
        f"config.toml:15: adaptive.guards.inhibit[2] = 3: wanted {WINDOW}",
        "config.toml:17: adaptve = { x = 1 }: wanted a key that exists: did you mean adaptive?",
        "config.toml:20: kernel.max_page_sharing = 1: wanted keep, or a whole number from 2 to 2147483647",
        "config.toml:23: ksmtuned.sleep_msec = inf: wanted a whole number from 1 to 3600000 (milliseconds)",
        'config.toml:25: metrics.address = "localhost": wanted HOST:PORT, unix:/PATH or ""',
        'config.toml:28: guests.name_patterns = "qemu": wanted a list, each element text',
        "config.toml:29: guests.mergeable = 1: wanted true or false",
        "config.d/b.toml:2: adaptive.need.short_leave_percent = 12: wanted at least "
        "adaptive.need.short_enter_percent = 15 (default)",
        "config.toml:22: ksmtuned.npages_min = 2000: wanted at most ksmtuned.npages_max = 1250 (default)",
    ]


def test_files_that_are_no_toml_are_told_together_with_the_rest(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        "daemon = 3",
        a="x = 1\ny =\n",
        b=b'x = 1\ny = "\xff"',
        c="x = [1,\n\n",
        d="x = " + "9" * 5000,
        e="x = " + "[" * 5000,
        f="daemon.tick_seconds = 30",
    )
    (tmp_path / "config.d" / "g.toml").mkdir()
    (tmp_path / "config.d" / "h.toml").symlink_to("nowhere")
    said = mistakes(main)
    assert said[:3] == [
        "config.d/a.toml:2: wanted valid TOML (Invalid value)",
        "config.d/b.toml:2: wanted UTF-8 text",
        "config.d/c.toml:1: wanted valid TOML (Invalid value)",
    ]
    assert said[3].startswith("config.d/d.toml: wanted valid TOML (Exceeds the limit (4300 digits)")
    assert said[4:7] == [
        "config.d/e.toml: wanted valid TOML (maximum recursion depth exceeded)",
        "config.d/g.toml: wanted a readable file (Is a directory)",
        "config.d/h.toml: wanted a readable file (No such file or directory)",
    ]
    # 30 s against the default of 10 s is no mistake, because an unreadable file may have raised the default.
    assert len(said) == 8
    assert said[7].startswith("config.toml:1: daemon = 3: wanted a table of mode, backend, on_exit, ")


@pytest.mark.timeout(20)
def test_a_pipe_to_which_nobody_writes_is_not_waited_for(tmp_path: Path) -> None:
    main = write(tmp_path, a="")
    os.mkfifo(tmp_path / "config.d" / "b.toml")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "config.d" / "c.toml").symlink_to("../pipe")
    assert mistakes(main) == [f"config.d/{name}.toml: wanted a readable file (it is a pipe)" for name in "bc"]


def test_a_pipe_that_is_named_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    Thread(target=pipe.write_text, args=("daemon.tick_seconds = 3",)).start()
    assert load(pipe).config.daemon.tick_seconds == 3


def test_files_without_permission(tmp_path: Path) -> None:
    main = write(tmp_path, a="")
    main.chmod(0)
    (tmp_path / "config.d").chmod(0)
    with nobody():
        said = mistakes(main)
    assert said == [
        "config.toml: wanted a readable file (Permission denied)",
        "config.d: wanted a readable directory (Permission denied)",
    ]


def test_a_bad_value_is_a_mistake_even_when_a_drop_in_mends_it(tmp_path: Path) -> None:
    main = write(tmp_path, 'daemon.mode = "watch"', a='daemon.mode = "observe"')
    assert mistakes(main) == ['config.toml:1: daemon.mode = "watch": wanted manage or observe']


def test_a_mistake_in_a_table_of_an_array_is_on_its_line(tmp_path: Path) -> None:
    rule = '[[guests.rule]]\nname = "a*"\nmerge = "no"\n'
    assert mistakes(write(tmp_path, rule + rule.replace('"no"', "false") + rule.replace("name", "nam"))) == [
        "config.toml:6: guests.rule[1].merge = false: wanted one of yes, no, keep",
        'config.toml:8: guests.rule[2].nam = "a*": wanted a key that exists: did you mean guests.rule.name?',
    ]


def test_long_values_are_cut(tmp_path: Path) -> None:
    (said,) = mistakes(write(tmp_path, f'daemon.mode = "{"x" * 1000}"'))
    assert said == f'config.toml:1: daemon.mode = "{"x" * 59} ...: wanted manage or observe'


@pytest.mark.parametrize("key", KEYS)
def test_each_key_says_what_it_wants_and_where_it_stands(key: str, tmp_path: Path) -> None:
    (said,) = mistakes(write(tmp_path, f"# a date is good for nothing\n{key} = 1970-01-01\n"))
    assert said.startswith(f"config.toml:2: {key} = 1970-01-01: wanted ")
    assert "a key that exists" not in said


@pytest.mark.parametrize(
    "asked", ["daemon.tik_seconds", "pages_to_scan", "adaptive.needs", "mode", "ksmtuned.npage_max"]
)
def test_a_key_that_is_nearly_right_is_told_the_right_one(asked: str, tmp_path: Path) -> None:
    right = {
        "daemon.tik_seconds": "daemon.tick_seconds",
        "pages_to_scan": "fixed.pages_to_scan",
        "adaptive.needs": "adaptive.need",
        "mode": "daemon.mode",
        "ksmtuned.npage_max": "ksmtuned.npages_max",
    }[asked]
    (said,) = mistakes(write(tmp_path, f"{asked} = 1"))
    assert said == f"config.toml:1: {asked} = 1: wanted a key that exists: did you mean {right}?"


@pytest.mark.parametrize(("key", "reason"), REMOVED.items())
def test_a_key_that_is_gone_says_why_and_what_to_do(key: str, reason: str, tmp_path: Path) -> None:
    (said,) = mistakes(write(tmp_path, f"{key} = 1"))
    assert said == f"config.toml:1: {key} = 1: wanted no such line any more: {reason}; delete it"


def test_a_key_like_no_other_gets_no_advice(tmp_path: Path) -> None:
    assert mistakes(write(tmp_path, '"q\\" é" = 1')) == ['config.toml:1: "q\\" é" = 1: wanted a key that exists']


@pytest.mark.parametrize(("low", "relation", "high"), ORDERED)
def test_keys_that_contradict_each_other(low: str, relation: str, high: str, tmp_path: Path) -> None:
    too_low = KEYS[low] // 2 or 0.5
    words = "above" if relation == "<" else "at least"
    wanted = f"{words} {low} = {KEYS[low]} (default)"
    assert f"config.toml:1: {high} = {too_low}: wanted {wanted}" in mistakes(write(tmp_path, f"{high} = {too_low}"))


def test_of_two_files_that_contradict_each_other_the_later_is_to_blame(tmp_path: Path) -> None:
    main = write(tmp_path, "[daemon]\ntick_seconds = 5\n", a="[daemon]\nidle_tick_seconds = 4")
    assert mistakes(main) == [
        "config.d/a.toml:2: daemon.idle_tick_seconds = 4: wanted at least daemon.tick_seconds = 5 (config.toml:2)"
    ]


def test_equal_is_within_at_most(tmp_path: Path) -> None:
    assert isinstance(load(write(tmp_path, "daemon.idle_tick_seconds = 1.0")), Loaded)


def test_a_group_that_nobody_is_isolated_by_is_told_of(tmp_path: Path) -> None:
    main = write(tmp_path, 'guests.isolation_group = "a"\n')
    assert load(main).warnings == (
        f'{main}:1: guests.isolation_group does nothing without guests.isolation = "groups"',
    )
    assert load(write(tmp_path, 'guests.isolation_group = "a"\nguests.isolation = "groups"\n')).warnings == ()
    assert load(write(tmp_path, "")).warnings == ()


def test_changed_keys_for_the_reload_message(tmp_path: Path) -> None:
    text = "daemon.tick_seconds = 2\nadaptive.quiet.boost_percent.calm = 7\nguests.name_patterns = ['vmm*']"
    new = load(write(tmp_path, text)).config
    assert changed_keys(Config(), new) == (
        ("daemon.tick_seconds", 1.0, 2.0),
        ("adaptive.quiet.boost_percent.calm", 20.0, 7.0),
        ("guests.name_patterns", (), ("vmm*",)),
    )
    assert changed_keys(new, new) == ()


scalars = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.dates(),
    st.times(),
    st.datetimes(),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)


@settings(deadline=None)
@given(values)
def test_toml_value_says_what_tomllib_reads(value: Any) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*KEYS, "daemon", "adaptive.need", "x"]), values, min_size=1, max_size=1))
def test_any_value_of_any_key_is_taken_or_named(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any]
) -> None:
    ((key, value),) = table.items()
    main = write(tmp_path_factory.mktemp("any"), f"\n{key} = {toml_value(value)}\n")
    for error in refused(main):
        assert (error.file, error.line) == (str(main), 2)
        assert error.key.startswith(key)


@st.composite
def documents(draw: st.DrawFn) -> tuple[list[str], dict[KeyPath, int]]:
    """Lines of TOML, and the line of each key in them."""
    lines: list[str] = []
    places: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number in range(draw(st.integers(1, 8))):
        begin = len(lines) + 1
        key = f"k{number}"
        match draw(st.sampled_from(["table", "dotted", "quoted", "inline", "array", "text", "comment"])):
            case "table":
                table = (f"t{number}", "sub")
                lines.append(f'[ t{number} . "sub" ] # [x]')
                places |= {table[:1]: begin, table: begin}
            case "dotted":
                lines.append(f"{key} . a.b = 1")
                places |= {(*table, key): begin, (*table, key, "a"): begin, (*table, key, "a", "b"): begin}
            case "quoted":
                lines.append(f"'{key}.x' = '[t]'")
                places[(*table, f"{key}.x")] = begin
            case "inline":
                lines.append(f'{key} = {{ a = 1, "b c" = [2] }}')
                places |= {(*table, key): begin, (*table, key, "a"): begin, (*table, key, "b c"): begin}
                places[(*table, key, "b c", 0)] = begin
            case "array":
                lines += [f"{key} = [  # one", "'x', 1,", "", "# ]", "[2]", "]"]
                places |= {(*table, key): begin, (*table, key, 0): begin + 1, (*table, key, 1): begin + 1}
                places |= {(*table, key, 2): begin + 4, (*table, key, 2, 0): begin + 4}
            case "text":
                lines += [f'{key} = """', "[t]", "a = 1", "]", '"""']
                places[(*table, key)] = begin
            case "comment":
                lines += ["", "# a = 1"]
    return lines, places


@settings(deadline=None)
@given(documents(), st.sampled_from(["\n", "\r\n"]))
def test_key_lines_finds_every_key(document: tuple[list[str], dict[KeyPath, int]], ending: str) -> None:
    lines, places = document
    assert key_lines(ending.join(lines)) == places


def test_key_lines_finds_tables_in_arrays() -> None:
    text = """\
[[of.tables]]
a = 1
[[of.tables.inner]]
b = 2
[[of.tables.inner]]
[of.tables.inner.table]
[[of.tables]]
c = [[3]]
[[of.tables.inner]]
"""
    tables = ("of", "tables")
    assert key_lines(text) == {
        ("of",): 1,
        tables: 1,
        (*tables, 0): 1,
        (*tables, 0, "a"): 2,
        (*tables, 0, "inner"): 3,
        (*tables, 0, "inner", 0): 3,
        (*tables, 0, "inner", 0, "b"): 4,
        (*tables, 0, "inner", 1): 5,
        (*tables, 0, "inner", 1, "table"): 6,
        (*tables, 1): 7,
        (*tables, 1, "c"): 8,
        (*tables, 1, "c", 0): 8,
        (*tables, 1, "c", 0, 0): 8,
        (*tables, 1, "inner"): 9,
        (*tables, 1, "inner", 0): 9,
    }
