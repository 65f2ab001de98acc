"""The shim for Ryu on today's eventlet, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import eventlet
import pytest

from fsctl.compat import PTH_NAME

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = Path(eventlet.__file__).resolve().parents[1]


class Environment:
    """A throw-away venv; what it can import is said for each run."""

    def __init__(self, directory: Path) -> None:
        venv.create(directory, symlinks=True, system_site_packages=True)
        self.python = directory / "bin" / "python"

    def run(self, *arguments: str, paths: tuple[Path, ...]) -> str:
        """Standard output; nothing may be said on standard error (but eventlet's word on itself)."""
        env = {"PYTHONPATH": ":".join(map(str, paths)), "PYTHONWARNINGS": "ignore"}
        done = subprocess.run([self.python, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("venv"))
    written = made.run("-m", "fsctl.compat", paths=(ROOT, LIBRARIES))
    assert Path(written).name == PTH_NAME
    assert made.run("-m", "fsctl.compat", paths=(ROOT, LIBRARIES)) == written
    return made


def test_eventlet_has_the_old_name_without_being_asked(environment: Environment) -> None:
    say = "import eventlet.wsgi as w; print(list(w.ALREADY_HANDLED), w.WSGI_LOCAL.already_handled)"
    assert environment.run("-c", say, paths=(ROOT, LIBRARIES)) == "[] True"


def test_ryus_wsgi_module_loads(environment: Environment) -> None:
    say = "import ryu.app.wsgi as w; print(w._AlreadyHandledResponse.__name__)"
    assert environment.run("-c", say, paths=(ROOT, LIBRARIES)) == "_AlreadyHandledResponse"


def test_other_starts_of_python_do_not_load_eventlet(environment: Environment) -> None:
    assert environment.run("-c", "import sys; print('eventlet' in sys.modules)", paths=(ROOT, LIBRARIES)) == "False"


def test_python_starts_when_fsctl_is_gone(environment: Environment) -> None:
    assert environment.run("-c", "print('fine')", paths=()) == "fine"


def test_without_the_shim_the_name_is_missing() -> None:
    """Should eventlet bring it back, this module can go."""
    say = f"import sys; sys.path[:0] = {sys.path!r}; import eventlet.wsgi as w; print(hasattr(w, 'ALREADY_HANDLED'))"
    done = subprocess.run([sys.executable, "-S", "-c", say], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
