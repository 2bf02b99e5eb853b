"""Hooks of mkdocs: the reference page is made from the public names, links to the sources lead to the repository."""

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return a page's text with the reference in place of its marker, and links out of `docs` as addresses."""
    if page.file.src_uri == "api.md":
        markdown = markdown.replace("<!-- reference -->", reference())
    if "\n## " not in markdown:  # the room of an empty table of contents, for wide tables
        page.meta["hide"] = ["toc"]
    sources = config["repo_url"] + "/blob/main/"
    return re.sub(r"\]\(\.\./([\w./-]+)\)", lambda found: f"]({sources}{found[1]})", markdown)


def on_nav(nav: Any, config: Any, files: Any) -> Any:
    """Add pages that the navigation does not name yet below its last section."""
    named = {page.file.src_uri for page in nav.pages}
    for file in files.documentation_pages():
        if file.src_uri not in named:
            nav.items[-1].children.append(file.page)
            file.page.parent = nav.items[-1]
            nav.pages.append(file.page)
    return nav


def public_names() -> dict[str, list[str]]:
    """Return what each module offers: `gicinpaint` itself first, then the modules among its names."""
    package = importlib.import_module("gicinpaint")
    modules = [name for name in package.__all__ if isinstance(getattr(package, name), ModuleType)]
    names = {"gicinpaint": [name for name in package.__all__ if name not in modules]}
    for name in modules:
        if exported := getattr(importlib.import_module(f"gicinpaint.{name}"), "__all__", None):
            names[f"gicinpaint.{name}"] = list(exported)
    return names


def reference() -> str:
    """Return the text of the reference: a section for each module, each name under the path where it lies."""
    lines, seen = [], set()
    for module, names in public_names().items():
        lines += [f"## {module}", "", (importlib.import_module(module).__doc__ or "").strip(), ""]
        for name in sorted(names, key=str.lower):
            path = home(module, name)
            if path not in seen:
                lines += [f"::: {path}", ""]
            else:
                lines += [f"### {name} {{ #{module}.{name} }}", "", f"See [{name}][{path}].", ""]
            seen.add(path)
    return "\n".join(lines)


def home(module: str, name: str) -> str:
    """Return the path of the module in which a public name is defined, with the name."""
    found = getattr(importlib.import_module(module), name)
    place = getattr(found, "__module__", None) if inspect.isclass(found) or inspect.isroutine(found) else None
    return f"{place or module}.{getattr(found, '__qualname__', name) if place else name}"
