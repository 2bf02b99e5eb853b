"""An extension of griffe: the reference shows the section Example of a docstring as code, as it shows Examples."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Gives the section the name that griffe's parser knows."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section in the docstring of a class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
