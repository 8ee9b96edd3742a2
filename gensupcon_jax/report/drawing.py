"""Drawing with matplotlib: colors, style, drawable names, and PNG as a data URI."""

import base64
import io
from contextlib import AbstractContextManager
from typing import Any

from gensupcon_jax.report.values import short

# matplotlib and scikit-learn are imported inside the functions that need them: they take 1 to 2 s, which an error in the
# config should not wait for.

NAMED_CLASSES = 20  # up to this number, every class has its own color, name and cell; more would be unreadable
PICTURE_DPI = 150  # sharp on high-density screens
DRAWN_LENGTH = 22  # longer class names are truncated in pictures

# Ten colors chosen for color-blind readers (M. A. Petroff, arXiv 2107.02270); the second ten classes get triangles.
CLASS_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
INK, MUTED, EDGE, GRID, OTHERS = "#1b2330", "#5a6576", "#7d8796", "#e3e7ee", "#c9d0da"
BLUE, ORANGE = "#1f5fbf", "#c2410c"

STYLE = {
    "font.size": 10,
    "axes.edgecolor": "#9aa4b2",
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlepad": 10,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
}


def picture_style() -> AbstractContextManager[None]:
    """The style of the pictures, independent of the user's matplotlibrc (usetex would need a TeX installation)."""
    from matplotlib import style

    return style.context(STYLE, after_reset=True)


def new_figure(width: float, height: float) -> Any:
    """An empty figure, with sizes in inches, outside of pyplot."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def tidy(axes: Any) -> None:
    """Grid behind the curves, no frame at the top and right, integer ticks for steps."""
    from matplotlib.ticker import MaxNLocator

    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_xlabel() == "step":
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def halo(width: float = 2.4) -> list[Any]:
    """A white outline for text on top of lines or points."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground="white")]


def png(figure: Any) -> str:
    """The figure as a PNG data URI."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=PICTURE_DPI)
    return data_uri(stream)


def data_uri(stream: io.BytesIO) -> str:
    """A finished PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def drawable_name(name: str, index: int) -> str:
    """The name, if matplotlib can draw it, else the class number: its font lacks many scripts, and $ would start a formula."""
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    drawable = all(font.get_char_index(ord(letter)) for letter in name)
    return short(name, DRAWN_LENGTH).replace("$", r"\$") if drawable else f"class {index}"


def class_color(place: int) -> str:
    """The color of a class by its index among the colored classes."""
    return CLASS_COLORS[place % len(CLASS_COLORS)]


def class_mark(place: int) -> str:
    """A circle for the first ten classes, a triangle for the next, as twenty colors are hard to distinguish."""
    return "o" if place < len(CLASS_COLORS) else "^"
