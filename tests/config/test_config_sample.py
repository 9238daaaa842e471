"""The sample configuration is in step with the schema, complete, and at the defaults."""

import re
from pathlib import Path

from ksmtuned_py.config import Config
from ksmtuned_py.configfile.load import load
from ksmtuned_py.configfile.text import flat, keys, render_sample, sections

SAMPLE = Path(__file__).parent.parent.parent / "config" / "config.toml"
REGENERATE = "run: .venv/bin/python packaging/generate.py"


def test_it_is_what_the_schema_gives() -> None:
    assert SAMPLE.read_text() == render_sample(), REGENERATE


def test_it_loads_as_the_defaults(tmp_path: Path) -> None:
    sample = tmp_path / "config.toml"
    sample.write_text(render_sample())
    loaded = load(sample)
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {str(sample)}, "a key is missing"


def test_each_place_is_the_line_of_its_key(tmp_path: Path) -> None:
    sample = tmp_path / "config.toml"
    sample.write_text(render_sample())
    loaded, lines = load(sample), render_sample().splitlines()
    for path, value in flat(loaded.config.model_dump()):
        line = lines[int(loaded.place(".".join(map(str, path))).rpartition(":")[2]) - 1]
        assert re.match(rf"({path[-1]}|{path[-2]}) = ", line), (path, value, line)


def test_every_key_and_section_is_described() -> None:
    for path, section in sections(Config()):
        assert type(section).__doc__, path
        for name, description, _ in keys(section):
            assert description, (*path, name)


def test_the_example_of_the_drop_ins_readme_is_right(tmp_path: Path) -> None:
    readme = (SAMPLE.parent / "config.d" / "README").read_text()
    example = "\n".join(line for line in readme.splitlines() if line.startswith("    "))
    assert "[adaptive]" in example
    drop_in = tmp_path / "50.toml"
    drop_in.write_text(example)
    assert load(drop_in).config.adaptive.guards.inhibit == ("08:00-18:00",)
