"""The style of the pictures that are drawn with matplotlib for the docs: colors, fonts, figures outside of pyplot."""

from contextlib import AbstractContextManager

from matplotlib import style
from matplotlib.figure import Figure

INK, MUTED, EDGE = "#1b2330", "#5a6576", "#7d8796"
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
    return style.context(STYLE, after_reset=True)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, with sizes in inches, outside of pyplot."""
    return Figure(figsize=(width, height), layout="constrained")
