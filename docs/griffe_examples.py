"""Lets the API page show docstrings' ``Example:`` as code: griffe knows only the plural."""

import griffe


class Examples(griffe.Extension):
    """Renames the section while the documentation is built."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Of every object that has a docstring."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
