"""The house rules that a machine can check hold: the tools, the floors, the purity, the sizes."""

import ast
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support.need import need
from tests.support.workers import RINGS

ROOT = Path(__file__).parent.parent.parent
PACKAGE = "ksmtuned_py"
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"", "model", "units", "errors", "door"}),
    frozenset({"config", "plan", "sensors", "guests", "hypervisor", "ksmdmodel", "scanner", "backends"}),
    frozenset({"policy", "report", "publish", "host", "configfile"}),
    frozenset({"tick", "trace", "simulate", "undo"}),
    frozenset({"daemon", "doctor"}),
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
"""The floors. A module imports from its own or one before it; "" is the package itself with its version."""
LARGEST_ROOM, MOST_ARROWS = 0.25, 140
REMAP = "scanner.remap."
REMAP_FLOORS = ("processors", "stop", "refuse", "foothold", "share")
PURE = frozenset({"model", "units", "errors", "config", "plan", "policy", "report"})
"""The modules that are given all they know: no clock, file, log or environment. They import only each other."""
PURE_MARK = "Pure."
"""The mark of other modules that are like that, in their docstring. From all others they take nouns and constants."""
IMPURE = frozenset({"os", "time", "socket", "logging", "subprocess"})
ONE_FILE_EACH = ("libvirt", "systemd")
OPENERS = frozenset({"open", "Path", "listdir", "scandir", "readlink", "exists", "stat"})
WAITING = frozenset({"cmdline", "environ", "maps", "smaps", "smaps_rollup", "pagemap", "ksm_stat", "cgroup"})
"""The files of a process that wait for the lock of its memory map, or for those of cgroups."""
COMPLAINT = re.compile(r"(refusal|refused|lack|failure|problem|trouble|death)$")
"""The names of what tells why something is not done or not well: a sentence, or None."""
MOST_FUNCTION_LINES = 40
MOST_FILE_LINES = 300
SHELL_SCRIPTS = (
    "packaging/bootstrap.sh",
    ".ci/run",
    "tests/support/capture/capture.sh",
    "packaging/build.sh",
    "packaging/lock.sh",
    "packaging/image/build.sh",
    "packaging/stage.sh",
)


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of the package by its name below it."""
    files = sorted((ROOT / PACKAGE).rglob("*.py"))
    return {_name(file): ast.parse(file.read_text(), str(file)) for file in files}


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _file_of(module: str) -> Path:
    path = ROOT.joinpath(PACKAGE, *module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def nodes(module: str) -> tuple[ast.AST, ...]:
    """All nodes of a module's tree. Most rules ask for them, and a walk takes longer than any rule."""
    return tuple(ast.walk(sources()[module]))


@cache
def imported(module: str) -> tuple[str, ...]:
    """The full names of what a module imports, at its top or within a function."""
    return tuple(_imported(module))


def _imported(module: str) -> Iterator[str]:
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for name in imported(module):
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            inside = name.removeprefix(PACKAGE).removeprefix(".")
            found.add(inside if inside in sources() else inside.rpartition(".")[0])
    return found


def own_names(module: str) -> Iterator[tuple[str, str]]:
    """The names that a module takes from other modules of the package, with those modules; '' is a module itself."""
    for name in imported(module):
        if name.startswith(f"{PACKAGE}."):
            inside = name.removeprefix(f"{PACKAGE}.")
            other, _, taken = (inside, "", "") if inside in sources() else inside.rpartition(".")
            yield other, taken.lstrip("_")


def floor(module: str) -> int:
    """The number of a module's floor, from 0. A module without a floor fails the test."""
    room = module.split(".")[0]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def run_tool(*arguments: str) -> str:
    """Run a tool, and return what it says when it finds something; '' when it finds nothing."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)], ids=" ".join)
def test_tools_find_nothing(arguments: tuple[str, ...]) -> None:
    if found := run_tool(*arguments):
        pytest.fail(found, pytrace=False)


def test_shell_scripts_are_clean() -> None:
    need(shutil.which("shellcheck") is not None, "shellcheck")
    done = subprocess.run(["shellcheck", *SHELL_SCRIPTS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_every_module_has_a_floor() -> None:
    rooms = frozenset().union(*FLOORS)
    assert {module for module in sources() if module.split(".")[0] not in rooms} == set()


def test_imports_go_down() -> None:
    pairs = [(module, other) for module in sources() for other in own_imports(module)]
    assert len(pairs) > 50
    assert [f"{module} imports {other}" for module, other in pairs if floor(other) > floor(module)] == []


def test_no_import_goes_in_a_circle() -> None:
    graph = {module: own_imports(module) - {module} for module in sources()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle in it


def is_pure(module: str) -> bool:
    """Whether a module is in a pure room, or says of itself that it is pure."""
    return module.split(".")[0] in PURE or PURE_MARK in (ast.get_docstring(sources()[module]) or "")


def test_pure_modules_know_only_what_they_are_given() -> None:
    pure = [module for module in sources() if is_pure(module)]
    assert len(pure) > 2 * len(PURE)
    foreign = [(module, name) for module in pure for name in imported(module)]
    assert [pair for pair in foreign if pair[1].split(".")[0] in IMPURE] == []
    borrowed = [(module, other, name) for module in pure for other, name in own_names(module)]
    assert [each for each in borrowed if not is_pure(each[1]) and not each[2][:1].isupper()] == []


def test_no_room_is_most_of_the_house_and_few_arrows_go_between_rooms() -> None:
    lines = Counter[str]()
    for module in sources():
        lines[module.split(".")[0]] += len(_file_of(module).read_text().splitlines())
    [(room, most)] = lines.most_common(1)
    assert most <= LARGEST_ROOM * lines.total(), room
    arrows = rooms_below()
    assert sum(map(len, arrows.values())) <= MOST_ARROWS
    TopologicalSorter(arrows).prepare()  # raises CycleError with the circle in it


def rooms_below() -> dict[str, set[str]]:
    """The rooms that each room imports from."""
    found: dict[str, set[str]] = {module.split(".")[0]: set() for module in sources()}
    for module in sources():
        found[module.split(".")[0]] |= {other.split(".")[0] for other in own_imports(module)}
    return {room: others - {room} for room, others in found.items()}


def test_the_floors_of_remapping_are_kept() -> None:
    """The dangerous part is read from below: machine code, stopping, refusing, a foothold, sharing."""
    inside = [module for module in sources() if module.startswith(REMAP) and module.count(".") > 2]
    assert len(inside) > 4 * len(REMAP_FLOORS)
    pairs = [(module, other) for module in inside for other in own_imports(module) if other.startswith(REMAP)]
    assert [f"{module} imports {other}" for module, other in pairs if _remap_floor(other) > _remap_floor(module)] == []


def _remap_floor(module: str) -> int:
    return REMAP_FLOORS.index(module.split(".")[2])


def test_parsers_touch_nothing_but_their_text() -> None:
    touched = [
        f"{module}.{function.name} uses {node.id}"
        for module, function in functions()
        if function.name.startswith("parse_")
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and node.id in IMPURE | {"open", "Path"}
    ]
    assert touched == []


@pytest.mark.parametrize("library", ONE_FILE_EACH)
def test_an_optional_library_is_touched_in_one_file(library: str) -> None:
    users = {module for module in sources() for name in imported(module) if name.split(".")[0] == library}
    assert len(users) <= 1


def test_only_the_door_opens_kernel_files() -> None:
    opened = [
        f"{module}:{node.lineno} opens {_text_begin(node.args[0])}"
        for module in sources()
        for node in nodes(module)
        if isinstance(node, ast.Call) and node.args and _text_begin(node.args[0]).startswith(("/proc", "/sys"))
        if ast.unparse(node.func).split(".")[-1] in OPENERS
    ]
    assert opened == []


def test_a_kernel_file_has_one_reader() -> None:
    """Who names a file knows its form. Directories that are only looked through may be named twice."""
    readers: dict[str, set[str]] = {}
    for module in sources():
        for node in nodes(module):
            text = _text_begin(node) if isinstance(node, ast.expr) else ""
            if text.startswith(("proc/", "sys/")) and not text.endswith("/"):
                readers.setdefault(text, set()).add(module)
    assert len(readers) > 10
    assert {name: modules for name, modules in readers.items() if len(modules) > 1} == {}


def test_only_patience_reads_what_may_make_it_wait() -> None:
    """Only the scan backend's worker is exempt. It is a process of its own, which may wait for a guest."""
    makers = {module for module in sources() if "Inside" in set(_called(module))}
    assert makers == {"guests.patience"}
    paths = [
        f"{module}:{node.lineno}"
        for module in sources()
        if not module.startswith("scanner")
        for node in nodes(module)
        if isinstance(node, ast.JoinedStr) and node.values and _text_begin(node).startswith("proc/")
        if isinstance(last := node.values[-1], ast.Constant) and str(last.value).rpartition("/")[2] in WAITING
    ]
    assert paths == []


def _called(module: str) -> Iterator[str]:
    """The names that are called in a module."""
    for node in nodes(module):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2]


def _text_begin(node: ast.expr) -> str:
    """The literal text that an argument is, or begins with; '' when it does neither."""
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function of the package with its module."""
    for module in sources():
        yield from ((module, node) for node in nodes(module) if isinstance(node, ast.FunctionDef))


def test_no_child_takes_its_code_from_the_directory_we_happen_to_be_in() -> None:
    """That directory may be anybody's, and we are root. python -m searches it first, unless it has -P or -I."""
    begun = [line for file in (ROOT / PACKAGE).rglob("*.py") for line in _lines_with(file, "sys.executable")]
    assert begun
    assert [line for line in begun if '"-P"' not in line and '"-I"' not in line] == []


def _lines_with(file: Path, text: str) -> list[str]:
    return [line.strip() for line in file.read_text().splitlines() if text in line]


def test_who_puts_the_parts_together_hands_them_over() -> None:
    """What one part needs of another comes by its constructor: nobody reaches through an object to set another's."""
    reached = {
        f"{module}: {ast.unparse(target)}"
        for module in sources()
        if module.startswith(("daemon.", "cli."))
        for node in nodes(module)
        for target in (node.targets if isinstance(node, ast.Assign) else ())
        if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Attribute)
    }
    assert reached == set()


def test_nothing_to_complain_of_is_none_and_never_an_empty_text() -> None:
    asked = [node for _, node in functions() if COMPLAINT.search(node.name)]
    kept = [node for module in sources() for node in nodes(module) if isinstance(node, ast.AnnAssign)]
    kept = [node for node in kept if COMPLAINT.search(ast.unparse(node.target))]
    assert len(asked) > 10
    assert len(kept) > 5
    assert [node.name for node in asked if ast.unparse(node.returns or node) == "str"] == []
    assert [ast.unparse(node) for node in kept if ast.unparse(node.annotation) == "str" and node.value] == []


def test_a_public_class_has_a_name_of_its_own() -> None:
    """Only a section of the configuration may be called like what it configures."""
    named: dict[str, list[str]] = {}
    for module in sources():
        if module.split(".")[0] != "config":
            for node in nodes(module):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    named.setdefault(node.name, []).append(module)
    assert len(named) > 200
    assert {name: modules for name, modules in named.items() if len(modules) > 1} == {}


def test_tests_lie_in_rooms_as_the_code_does() -> None:
    """What is in no room of the code is a ring, or about the repository as a whole."""
    rooms = {module.partition(".")[0] for module in sources()}
    folders = {file.relative_to(ROOT / "tests").parts[0] for file in (ROOT / "tests").rglob("test_*.py")}
    flat = {folder for folder in folders if folder.endswith(".py")}
    assert folders - flat - rooms - RINGS == {"repository"}
    assert {(ROOT / PACKAGE / file.removeprefix("test_")).is_file() for file in flat} == {True}


def test_functions_and_files_stay_short() -> None:
    long = [f"{module}.{node.name}" for module, node in functions() if _lines(node) > MOST_FUNCTION_LINES]
    files = (ROOT / PACKAGE).rglob("*.py")
    long += [file.name for file in files if len(file.read_text().splitlines()) > MOST_FILE_LINES]
    assert long == []


def _lines(node: ast.FunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_a_docstring_needs_no_other_to_be_understood() -> None:
    dangling = re.compile(r"(With|Of|In|By|From|For|On|At|As|Like|The same|It|They)\b")
    found = [
        f"{module}: {text.splitlines()[0]}"
        for module in sources()
        for node in nodes(module)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if (text := ast.get_docstring(node)) and dangling.match(text)
    ]
    assert found == []


def test_every_exception_from_the_rules_has_its_reason_beside_it() -> None:
    silenced = re.compile(r"# (noqa|type: ignore)\b|\bexcept (Base)?Exception\b")
    reasoned = re.compile(r"# (noqa: [A-Z\d, ]+|type: ignore\[[^]]+\]) *[-#] *\w|\bexcept (Base)?Exception\b.*# *\w")
    bare = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in (PACKAGE, "tests", "bench")
        for file in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if silenced.search(line) and not reasoned.search(line)
    ]
    assert bare == []
