"""Names of a package that are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def exports(
    package: str, names: dict[str, Any], where: dict[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        names: its `globals()`.
        where: name -> the module that has it. The modules are found by their own names, too.
    """

    def getter(name: str) -> Any:
        if name in where:
            names[name] = getattr(import_module(f".{where[name]}", package), name)
            return names[name]
        if name in where.values():
            return import_module(f".{name}", package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def lister() -> list[str]:
        return sorted({*names, *names["__all__"]})

    return getter, lister
