"""Sets equations while the documentation is built, as MathML, so that a page needs no other host to show them."""

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.postprocessors import Postprocessor
from typing_extensions import override

FOUND = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


class Equations(Postprocessor):
    """Turns what `pymdownx.arithmatex` marks as TeX into MathML."""

    @override
    def run(self, text: str) -> str:
        return FOUND.sub(as_mathml, text)


def as_mathml(found: re.Match[str]) -> str:
    """An equation of the page: a line of its own, or a part of one."""
    kind, tex = found.groups()
    display = "block" if kind == "div" else "inline"
    return f'<{kind} class="equation">{convert(unescape(tex), display=display)}</{kind}>'


class MathML(Extension):
    """Adds `Equations` to a converter."""

    @override
    def extendMarkdown(self, md: Markdown) -> None:
        """Last of all, when everything else is in place."""
        md.postprocessors.register(Equations(md), "mathml", -100)


def makeExtension(**settings: Any) -> MathML:
    """What Markdown calls to make the extension; it asks for this name."""
    return MathML(**settings)
