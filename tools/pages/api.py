"""Write docs/api.md from the public names and their docstrings: ``tools/pages/api.py``."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import cpstage

PAGE = Path(__file__).parents[2] / "docs/api.md"
WIDTH = 100
_HEAD = """# Python API

<!-- Written by tools/pages/api.py from the docstrings; a test compares. -->

After this page you can do in Python what the commands do. The commands call these functions, and
all of them have type hints. `import cpstage` is fast, because each name is loaded at its first use.

```python
import cpstage

job = cpstage.get_job("5af48dbb-522e-493f-b3c0-cb2c6efd32f8")
fetched = cpstage.fetch(job, "workspace")
for staged in fetched.inputs:
    print(staged.path)
# Build: write to workspace/dist and to workspace/out/AppReport.
cpstage.push(job, "workspace", cpstage.PushOptions({"AppBuild": "workspace/dist"}))
```

Every error is a [`CpstageError`](#errors). Its text is the line that the command prints.
"""


def page() -> str:
    """Return the page."""
    public = {name: getattr(cpstage, name) for name in cpstage.__all__ if name != "__version__"}
    errors = {name: one for name, one in vars(cpstage.errors).items() if _is_error(one)}
    sections = {
        "Functions": {name: one for name, one in public.items() if inspect.isfunction(one)},
        "Types": {
            name: one
            for name, one in public.items()
            if not inspect.isfunction(one) and name not in errors
        },
        "cpstage.inspect": _names_of(cpstage.inspect),
        "cpstage.job": {
            name: one
            for name, one in vars(cpstage.job).items()
            if inspect.isclass(one) and name not in public
        },
        "cpstage.worker": _names_of(cpstage.worker),
    }
    parts = [_HEAD]
    for title, names in sections.items():
        parts += [f"## {title}\n", *(_entry(name, one) for name, one in names.items())]
    return "\n".join(
        [
            *parts,
            "## Errors\n",
            "They are in `cpstage.errors`.\n",
            "| error | exit code | reported as | meaning |",
            "| --- | --- | --- | --- |",
            *(_error(name, one) for name, one in errors.items()),
            "",
        ]
    )


def _names_of(module: ModuleType) -> dict[str, Any]:
    return {name: getattr(module, name) for name in module.__all__}


def _is_error(one: object) -> bool:
    public = inspect.isclass(one) and not one.__name__.startswith("_")
    return public and hasattr(one, "exit_code")


def _error(name: str, one: Any) -> str:
    code = {"CommandFailed": "the command's", "Stopped": "128+n"}.get(name, one.exit_code)
    if name == "CommandNotStarted":
        code = "126, 127"
    summary = _inline(inspect.getdoc(one) or "").partition("\n\n")[0].replace("\n", " ")
    return f"| `{name}` | {code} | `{one.failure_type}` | {summary} |"


def _entry(name: str, one: Any) -> str:
    protocol = getattr(one, "_is_protocol", False)
    head = f"class {name}" if inspect.isclass(one) else name
    signature = head if protocol else _signature(head, one)
    return f"### `{name}`\n\n```python\n{signature}\n```\n\n{_text(inspect.getdoc(one) or '')}\n"


def _signature(head: str, one: Any) -> str:
    parts, keywords = [], False
    signature = inspect.signature(one)
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            parts.append("*")
            keywords = True
        parts.append(_parameter(parameter))
    result = signature.return_annotation
    ending = "" if result in (None, inspect.Signature.empty) or head[:6] == "class " else result
    ending = f" -> {ending}" if ending else ""
    line = f"{head}({', '.join(parts)}){ending}"
    if len(line) <= WIDTH:
        return line
    return f"{head}(\n    " + ",\n    ".join(parts) + f",\n){ending}"


def _parameter(parameter: inspect.Parameter) -> str:
    text = parameter.name
    if parameter.annotation is not parameter.empty:
        # A named tuple has the texts of its annotations as ForwardRef.
        text += f": {getattr(parameter.annotation, '__forward_arg__', parameter.annotation)}"
    if parameter.default is not parameter.empty:
        default = repr(parameter.default)
        text += " = " + ("..." if " at 0x" in default or default == "<factory>" else default)
    return text


def _text(docstring: str) -> str:
    """Turn the sections of a docstring into lists."""
    lines: list[str] = []
    listing = False
    for line in _inline(docstring).splitlines():
        if line in ("Args:", "Attributes:", "Raises:", "Returns:"):
            listing = line != "Returns:"
            lines += [f"**{line[:-1]}**", ""]
        elif listing and (found := re.match(r"    (\*{0,2}\w[\w, ]*): (.*)", line)):
            lines.append(f"- `{found[1]}`: {found[2]}")
        elif line.startswith("    "):
            lines.append("  " + line.strip() if listing else line.strip())
        else:
            lines.append(line)
    return "\n".join(lines)


def _inline(text: str) -> str:
    text = re.sub(r":\w+:`~?(?:cpstage\.)?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


if __name__ == "__main__":
    PAGE.write_text(page())
