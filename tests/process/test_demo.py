"""The verb `demo` runs on the in-memory model for anybody, without any right."""

from pathlib import Path

from tests.support.daemon import KSMTUNED, unprivileged, verb
from tests.support.terminal import Terminal


def test_the_model_merges_before_your_eyes_without_rights() -> None:
    done = verb("demo", "--backend", "model", "--guests", "3", "--size", "64", "--seconds", "4", before=unprivileged())
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "boosting at 95 % of a core: new guests: model-1, model-2, model-3" in lines[0]
    assert " CPU-s per GiB; of what can be saved: 50 % after " in lines[-1]
    assert "95 % after " in lines[-1]


def test_in_a_terminal_it_is_one_live_screen_and_what_came_of_it_stays() -> None:
    with Terminal([*KSMTUNED, "demo", "--backend", "model", "--guests", "3", "--size", "64"]) as terminal:
        assert "model-3" in terminal.wait("demo        ")
        terminal.press("w")
        terminal.wait("The rules (the winner is ")
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.is_restored()
        assert "; of what can be saved: " in terminal.text()


def test_it_ends_and_puts_back_when_its_window_is_closed(tmp_path: Path) -> None:
    command = [*KSMTUNED, "demo", "--backend", "model", "--guests", "3", "--size", "64"]
    with Terminal(["bash", "-c", f"exec {' '.join(command)} 2>{tmp_path}/said"]) as terminal:
        terminal.wait("q quit")
        terminal.hang_up()
        assert terminal.process.wait(20) == 1
    assert (tmp_path / "said").read_text() == ""


def test_on_the_kernel_it_says_what_it_needs() -> None:
    done = verb("demo", "--seconds", "1", before=[*unprivileged()])
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("ksmtuned-py: error: /")
