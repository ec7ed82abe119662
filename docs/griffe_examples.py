"""Two corrections of what griffe reads from the source, for the pages of the API."""

import griffe


class Examples(griffe.Extension):
    """Shows docstrings' ``Example:`` as code, and functions that are called like the file that they are in."""

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Rename the section of every docstring: griffe knows only the plural."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Let ``fewshotseg.correlation`` be the function, as in Python, where griffe sees the file of that name."""
        for name, member in list(pkg.members.items()):
            if isinstance(member, griffe.Alias) and member.target_path.startswith(f"{pkg.path}."):
                target = member.final_target
                if target.is_module and name in target.members:
                    pkg.members[name] = griffe.Alias(name, target.members[name], parent=pkg)
