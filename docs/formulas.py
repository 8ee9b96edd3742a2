"""Markdown extension of the docs site: formulas become MathML, which browsers show without a script or a font.

Written as on GitHub: a paragraph between two $$, or $`...`$ inside of a sentence.
"""

import re

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor


class Formula(InlineProcessor):
    """LaTeX -> MathML, kept out of the way of all other patterns."""

    def __init__(self, pattern: str, md: Markdown, display: str):
        super().__init__(pattern, md)
        self.display = display

    def handleMatch(self, found: re.Match, data: str) -> tuple[str, int, int]:  # noqa: N802  (Markdown's name)
        """Called by Markdown for each formula."""
        return self.md.htmlStash.store(convert(found[1].strip(), display=self.display)), *found.span()


class Formulas(Extension):
    """Both ways to write a formula."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  (Markdown's name)
        """Before inline code, whose pattern has priority 190."""
        md.inlinePatterns.register(Formula(r"\$\$(.+?)\$\$", md, "block"), "block_formula", 192)
        md.inlinePatterns.register(Formula(r"(?<!`)\$`([^`]+)`\$(?!`)", md, "inline"), "inline_formula", 191)


def makeExtension(**settings) -> Formulas:  # noqa: N802  (Markdown's name)
    """Called by Markdown for the name `docs.formulas`."""
    return Formulas(**settings)
