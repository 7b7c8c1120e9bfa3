"""The compose files are valid and agree with the command line and the settings. Nothing is started."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from briefbox.cli import app
from briefbox.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
MAIN = ROOT / "docker-compose.yml"
CPU = ROOT / "docker-compose.cpu.yml"


class Loader(yaml.SafeLoader):
    """Reads compose's own tag !reset as None, which is what it stands for."""


Loader.add_constructor("!reset", lambda loader, node: None)


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(path.read_text(), Loader)  # noqa: S506 - a SafeLoader with one tag more.
    return loaded


COMPOSE = load(MAIN)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("briefbox:")}
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
each_of_ours = pytest.mark.parametrize("service", OURS.values(), ids=OURS)


@pytest.mark.parametrize("path", [MAIN, CPU], ids=lambda path: path.name)
def test_it_fits_the_compose_specification(path: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.yml"
    plain.write_text(yaml.safe_dump(load(path)))
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(plain)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_of_ours
def test_every_service_runs_a_command_that_exists(service: dict[str, Any]) -> None:
    command = typer.main.get_command(app)
    context = command.make_context("briefbox", [], resilient_parsing=True)
    arguments = list(service["command"])
    while hasattr(command, "resolve_command"):
        name, command, arguments = command.resolve_command(context, arguments)
        # Parses the options and refuses unknown ones; nothing is run.
        context = command.make_context(name, list(arguments), parent=context)


@each_of_ours
def test_every_variable_is_a_setting(service: dict[str, Any]) -> None:
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    named = {name for name in service.get("environment", {}) if name.startswith(PREFIX)}
    assert {name.removesuffix("_FILE") for name in named} <= known


@pytest.mark.parametrize("name", sorted(set(OURS) - {"demo"}))
def test_the_settings_are_accepted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("postgresql://briefbox:secret@postgres/briefbox\n")
    for variable, value in OURS[name]["environment"].items():
        default = value.partition(":-")[2].removesuffix("}") if value.startswith("${") else value
        monkeypatch.setenv(variable, str(tmp_path / "secret") if variable.endswith("_FILE") else default)
    settings = Settings()
    assert not settings.embedded_redis
    assert settings.database_address.startswith("postgresql+psycopg://")


def test_every_reference_exists() -> None:
    for service in SERVICES.values():
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"])
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", []) if ":" in volume}
        assert volumes <= set(COMPOSE["volumes"])


def test_every_secret_file_that_a_service_reads_is_given_to_it() -> None:
    for service in SERVICES.values():
        files = {
            str(value) for name, value in service.get("environment", {}).items() if name.endswith("_FILE")
        }
        assert files == {f"/run/secrets/{secret}" for secret in service.get("secrets", [])}


def test_what_is_waited_for_can_be_healthy() -> None:
    for service in SERVICES.values():
        for name, wait in service.get("depends_on", {}).items():
            healthy = wait["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in SERVICES[name])


@each_service
def test_no_service_can_leave_its_container(service: dict[str, Any]) -> None:
    assert not service.get("privileged")
    assert "host" not in (service.get("network_mode"), service.get("pid"), service.get("ipc"))
    assert "no-new-privileges:true" in service["security_opt"]
    assert "docker.sock" not in str(service.get("volumes"))


@each_of_ours
def test_our_services_have_no_rights_they_do_not_need(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"]
    assert service["init"]


@each_service
def test_images_are_pinned(service: dict[str, Any]) -> None:
    version = service["image"].partition(":")[2]
    assert version[:1].isdigit()


def test_only_the_desk_is_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"desk", "demo"}
    assert all(ports == ["${BRIEFBOX_PUBLISH:-127.0.0.1:8025}:8025"] for ports in published.values())


def test_what_reads_mail_with_a_model_has_no_way_out() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in ("worker", "training", "postgres", "redis"):
        assert SERVICES[name]["networks"] == ["inside"]


def test_the_demo_stands_alone() -> None:
    assert SERVICES["demo"]["profiles"] == ["demo"]
    assert not {"depends_on", "secrets", "environment"} & set(SERVICES["demo"])


def test_the_cpu_file_takes_the_gpu_from_every_service_that_has_one() -> None:
    with_gpu = {name for name, service in SERVICES.items() if "deploy" in service}
    without = load(CPU)["services"]
    assert set(without) == with_gpu
    assert all(
        service == {"environment": {"BRIEFBOX_DEVICE": "cpu"}, "deploy": None} for service in without.values()
    )
