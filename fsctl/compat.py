"""Lets Ryu 4.34 (its last release) run on today's eventlet.

Ryu's `ryu.app.wsgi`, which `ryu-manager` imports before any application, wants `eventlet.wsgi.ALREADY_HANDLED`; eventlet
0.31 replaced that name by a thread-local flag, and no eventlet that still has the name runs on Python 3.10 or later.
`python -m fsctl.compat` makes the running environment give the name back: it writes a `.pth` file into site-packages that
installs an import hook. The hook does nothing until somebody imports `eventlet.wsgi`, and the file nothing once fsctl is gone.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

_TARGET = "eventlet.wsgi"
_NAME = "ALREADY_HANDLED"
PTH_NAME = "fsctl_compat.pth"
PTH_TEXT = 'import sys; exec("try:\\n from fsctl.compat import install\\nexcept ImportError: pass\\nelse: install()")\n'
"""One line, because `site` runs only single lines that begin with `import`."""


class _AlreadyHandled:
    """An empty response body that tells eventlet, when it is iterated, that the response has gone out already."""

    def __init__(self, wsgi: Any) -> None:
        self._wsgi = wsgi

    def __iter__(self) -> Iterator[bytes]:
        self._wsgi.WSGI_LOCAL.already_handled = True
        return iter(())


def patch(wsgi: Any) -> None:
    """Give the module `eventlet.wsgi` its old name back; leaves modules that still have it, or lack the new flag, alone."""
    if not hasattr(wsgi, _NAME) and hasattr(wsgi, "WSGI_LOCAL"):
        setattr(wsgi, _NAME, _AlreadyHandled(wsgi))


class _Loader(importlib.abc.Loader):
    """The module's own loader, with `patch` after it."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        patch(module)

    def __getattr__(self, name: str) -> Any:
        # Whatever else the loader can do (get_source for tracebacks, get_code for -m).
        return getattr(self._loader, name)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `eventlet.wsgi` as everybody else does, and wraps its loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _TARGET:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def install() -> None:
    """Patch `eventlet.wsgi` if it is loaded, else as soon as it is. May be called again."""
    loaded = sys.modules.get(_TARGET)
    if loaded is not None:
        patch(loaded)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def write_pth() -> str:
    """Write the `.pth` of this Python environment; its path. Raises OSError."""
    import sysconfig  # noqa: PLC0415 - not at every start of Python, which imports this module through the .pth
    from pathlib import Path  # noqa: PLC0415 - likewise

    path = Path(sysconfig.get_path("purelib")) / PTH_NAME
    if not path.exists() or path.read_text() != PTH_TEXT:
        path.write_text(PTH_TEXT)
    return str(path)


if __name__ == "__main__":
    sys.stdout.write(f"{write_pth()}\n")
