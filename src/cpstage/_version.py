"""The version, and public names that are loaded on first use: all that ``import cpstage`` needs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__version__ = "0.2.0"


def loaded_on_first_use(
    package: str, homes: Mapping[str, str], submodules: str = ""
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Args:
        package: The name of the package.
        homes: The names by the module that defines them, relative to the package.
        submodules: Modules of the package that are public themselves.
    """
    home_of = {name: home for home, names in homes.items() for name in names.split()}
    modules = submodules.split()

    def load(name: str) -> object:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{home_of[name]}", package), name)

    return load, lambda: [*home_of, *modules], sorted(home_of)
