"""Colors of the classes, for readers and in the dark."""

NAMED_CLASSES = 20  # up to this number, every class has its own color, name and cell; more would be unreadable

# Ten colors chosen for color-blind readers (M. A. Petroff, arXiv 2107.02270); the second ten classes get triangles.
CLASS_COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


def class_style(place: int) -> str:
    """The name that the style sheet gives the color of a class, by its index among the colored classes: "k0" to "k9"."""
    return f"k{place % len(CLASS_COLORS)}"


def class_shape(place: int) -> str:
    """A dot for the first ten classes, a triangle for the next, as twenty colors are hard to distinguish."""
    return "dot" if place < len(CLASS_COLORS) else "triangle"
