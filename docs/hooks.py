"""Hooks of mkdocs: pages from the public names and from the notebooks, links to the sources lead to the repository."""

import base64
import importlib
import inspect
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each notebook, with the outputs that are stored in it."""
    from mkdocs.structure.files import File

    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        name = path.stem.split("_", 1)[1]  # without its number
        text, pictures = notebook_page(json.loads(path.read_text(encoding="utf-8")), name)
        address = f"{config['repo_name']}/blob/main/notebooks/{path.name}"
        colab = f"https://colab.research.google.com/github/{address}"
        links = f"[The notebook](https://github.com/{address}), [on Colab]({colab})\n\n"
        title, _, rest = text.partition("\n\n")
        files.append(File.generated(config, f"notebooks/{name}.md", content=f"{title}\n\n{links}{rest}"))
        for picture, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{picture}", content=content))
    return files


def notebook_page(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """Return the text of a notebook's page, and the files of its pictures."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}_{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![what the code above shows]({picture})")
            else:
                parts.append("```text\n" + "".join(output.get("text") or data["text/plain"]).rstrip() + "\n```")
    return "\n\n".join(parts) + "\n", pictures


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Return a page's text with the reference in place of its marker, and links that leave `docs` as addresses."""
    if page.file.src_uri == "api.md":
        markdown = markdown.replace("<!-- reference -->", reference())
    if "\n## " not in markdown:  # the room of an empty table of contents, for wide tables
        page.meta["hide"] = ["toc"]
    markdown = re.sub(r"\]\(\.\./notebooks/\d+_(\w+)\.ipynb\)", r"](notebooks/\1.md)", markdown)
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
    modules = [name for name in dir(package) if isinstance(getattr(package, name), ModuleType)]
    names = {"gicinpaint": [name for name in dir(package) if name not in modules]}
    for name in modules:
        names[f"gicinpaint.{name}"] = list(getattr(getattr(package, name), "__all__", ()))
    return names


def reference() -> str:
    """Return the text of the reference: a section for each module, each name under the path where it lies."""
    lines, seen = [], set()
    for module, names in public_names().items():
        lines += [f"## {module}", "", (importlib.import_module(module).__doc__ or "").strip(), ""]
        for name in sorted(names, key=str.lower):
            path = home(module, name)
            if name == "__version__":  # read when it is asked for, so nothing in the sources defines it
                lines += ["### `__version__`", "", "The version that is installed, a string.", ""]
            elif path not in seen:
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
