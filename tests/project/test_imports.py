"""Who may import whom, and that only the GPU side loads a deep-learning library."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_import_rules_hold() -> None:
    lint_imports = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(lint_imports)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "module", ["ingest.poller", "desk.app", "briefbox.store", "briefbox.queue", "briefbox.cli"]
)
def test_torch_is_not_loaded_by(module: str) -> None:
    """In a fresh interpreter, because this one has long loaded it."""
    code = f"import sys, {module}; print(*sorted({{'torch', 'transformers', 'peft'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
