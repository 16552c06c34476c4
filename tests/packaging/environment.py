"""Virtual environments with a built sparsemeta, as the packaging tests and `make test` need them.

Run as a command, `python environment.py FOLDER` builds this tree and makes one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(command, cwd=cwd, env=os.environ | environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments: str | Path, cwd: Path = ROOT, **environ: str) -> str:
    """Run pip offline: nothing here needs a package that is not installed."""
    return run(sys.executable, "-m", "pip", *arguments, cwd=cwd, PIP_NO_INDEX="1", **environ)


def build_wheel(source: Path, folder: Path, **environ: str) -> Path:
    """Wheel of the tree in `source`, written into `folder`."""
    pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder, ".", cwd=source, **environ)
    return next(folder.glob("*.whl"))


def create(folder: Path, wheel: Path) -> Path:
    """Python of a new environment that has this wheel and borrows every other package from the running one.

    Only a .pth file of its own leads to the borrowed packages: the running environment's .pth files, and with them
    its editable sparsemeta, stay out. A PYTHONPATH does not do that: what the wheel lacks would come from there.
    """
    venv.create(folder, with_pip=False, clear=True, symlinks=True)
    python = folder / "bin" / "python"
    pip("--python", python, "install", "--no-deps", wheel)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return python


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as wheels:
        print(create(Path(sys.argv[1]), build_wheel(ROOT, Path(wheels))))
