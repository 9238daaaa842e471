"""Draws what is on a terminal's screen as a picture, for the documentation."""

from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont
from pyte.screens import Char
from rich.cells import cell_len

from tests.support.terminal import DimScreen

FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"
SIZE, LINE, EDGE = 20, 26, 18
"""The height of a letter and of a line, and the width of the edge, in pixels."""
BACKGROUND, FOREGROUND = "#1e1f29", "#e6e6e6"
COLOURS = {
    "black": "#1e1f29",
    "red": "#ff6b68",
    "green": "#5fd38d",
    "brown": "#e8c547",
    "blue": "#4f8fea",
    "magenta": "#d787e8",
    "cyan": "#4fc3d9",
    "white": "#d0d0d0",
    "brightblack": "#8a8fa3",
}
"""pyte calls yellow brown."""


def draw(screen: DimScreen, path: Path) -> None:
    """Writes the picture."""
    fonts = {bold: ImageFont.truetype(str(FONTS / name), SIZE) for bold, name in NAMES.items()}
    cell = round(fonts[False].getlength("M"))
    size = (screen.columns * cell + 2 * EDGE, screen.lines * LINE + 2 * EDGE)
    image = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(image)
    for row in range(screen.lines):
        for column in range(screen.columns):
            place = EDGE + column * cell, EDGE + row * LINE
            _draw_cell(pen, screen.buffer[row][column], place, cell, fonts)
    image.quantize(64).save(path, optimize=True)


NAMES = {False: "DejaVuSansMono.ttf", True: "DejaVuSansMono-Bold.ttf"}


def _draw_cell(
    pen: ImageDraw.ImageDraw,
    shown: Char,
    place: tuple[int, int],
    cell: int,
    fonts: dict[bool, ImageFont.FreeTypeFont],
) -> None:
    if not shown.data:
        return  # the second half of a wide character
    front, back = COLOURS.get(shown.fg, FOREGROUND), COLOURS.get(shown.bg, BACKGROUND)
    if shown.reverse:
        front, back = back, front
    x, y = place
    pen.rectangle((x, y, x + cell * cell_len(shown.data) - 1, y + LINE - 1), fill=back)
    level = "▁▂▃▄▅▆▇█".find(shown.data)
    if level >= 0:  # as terminals do it, so that blocks meet
        pen.rectangle((x, y + LINE - (level + 1) * LINE // 8, x + cell - 1, y + LINE - 1), fill=front)
    else:
        pen.text((x, y + 1), shown.data, fill=front, font=fonts[shown.bold])
