"""The Makefile, run beside a pretended Python and a pretended .venv: nothing is installed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout with nothing in it but what make looks at."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Variables of an outer `make test` must not reach this make.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def script(path: Path, *lines: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def installed(folder: Path) -> None:
    """Pretend that every step of the set-up is complete."""
    script(folder / ".venv/bin/python", "exit 0")
    torch = re.search(r"^TORCH := (\S+)$", MAKEFILE, re.MULTILINE)
    assert torch
    for name in ("venv", torch[1], "runtime", "dev"):
        (folder / f".venv/.stamp-{name}").write_text(f"{folder}\n")


def test_help_lists_every_target(folder: Path) -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony
    listed = re.findall(r"^make (\w+)", make(folder).stdout, re.MULTILINE)
    assert set(listed) == set(phony[1].split()) - {"FORCE"}


def test_no_python_is_named_with_the_command_that_installs_it(folder: Path) -> None:
    done = make(folder, "setup", "PYTHON=/nonexistent/python3")
    assert done.returncode == 2
    assert (
        "needs Python 3.11, 3.12 or 3.13 and looked for: /nonexistent/python3. None is here." in done.stderr
    )
    assert "sudo apt-get install python3 python3-venv" in done.stderr


def test_an_old_python_is_named_with_its_version(folder: Path) -> None:
    old = script(folder / "old", "echo 3.9")
    done = make(folder, "demo", f"PYTHON={old}")
    assert done.returncode == 2
    assert f"{old} is 3.9." in done.stderr


def test_a_missing_venv_module_is_named(folder: Path) -> None:
    bare = script(folder / "bare", 'case "$2" in *ensurepip*) exit 1;; esac', "echo 3.12")
    done = make(folder, "setup", f"PYTHON={bare}")
    assert done.returncode == 2
    assert "sudo apt-get install python3.12-venv" in done.stderr


def test_the_first_suitable_python_is_taken(folder: Path) -> None:
    old = script(folder / "old", "echo 3.9")
    good = script(folder / "good", '[ "$1" = -c ] && echo 3.12 && exit 0', 'echo "$@" > asked; exit 1')
    make(folder, "setup", f"PYTHON=/nonexistent {old} {good}")
    assert (folder / "asked").read_text() == "-m venv --clear .venv\n"


def test_a_complete_set_up_is_left_alone(folder: Path) -> None:
    installed(folder)
    assert make(folder, "--question", "setup").returncode == 0


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock", "pyproject.toml"])
def test_a_change_installs_again(folder: Path, lock: str) -> None:
    installed(folder)
    later = (folder / ".venv/.stamp-dev").stat().st_mtime + 10
    os.utime(folder / lock, (later, later))
    assert make(folder, "--question", "setup").returncode == 1


def test_a_half_made_venv_is_made_again(folder: Path) -> None:
    script(folder / ".venv/bin/python", "exit 0")
    assert "-m venv --clear" in make(folder, "--dry-run", "setup").stdout


def test_a_venv_that_was_moved_or_lost_its_python_is_made_again(folder: Path) -> None:
    installed(folder)
    (folder / ".venv/.stamp-venv").write_text("/elsewhere\n")
    assert "-m venv --clear" in make(folder, "--dry-run", "setup").stdout
    installed(folder)
    (folder / ".venv/bin/python").unlink()
    assert "-m venv --clear" in make(folder, "--dry-run", "setup").stdout


def test_demo_starts_briefbox_without_a_shell_between(folder: Path) -> None:
    installed(folder)
    script(folder / ".venv/bin/briefbox", 'echo "$(cat /proc/$PPID/comm):" "$@"')
    assert make(folder, "demo", "ARGS=--port 9000").stdout == "make: demo --port 9000\n"


def test_secrets_are_made_once_and_fit_the_settings(folder: Path) -> None:
    assert make(folder, "secrets").returncode == 0
    secrets = folder / "data/secrets"
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    assert len(before["secret_key"].strip()) == 44  # 32 bytes in base64
    password = before["postgres_password"].strip()
    assert before["database_url"] == f"postgresql://briefbox:{password}@postgres/briefbox\n"
    assert secrets.stat().st_mode & 0o777 == 0o700
    make(folder, "secrets")
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
