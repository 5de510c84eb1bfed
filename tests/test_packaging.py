"""What is delivered: the wheel, the scripts, the image and its compose file."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SCRIPTS = sorted([*(ROOT / "scripts").iterdir(), ROOT / ".ci/run"])


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=120
    )


def own_files() -> list[Path]:
    """Every file that is, or could be, committed."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed.returncode:
        pytest.skip("needs a git checkout: which files are ours is git's to say")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    made = run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ".")
    assert made.returncode == 0, made.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment that has the wheel, and its dependencies from here."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    # A path in a .pth file is not searched for others: our own editable install stays out.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    where = ("--python", str(folder), "--disable-pip-version-check")
    made = run(sys.executable, "-m", "pip", *where, "install", "--quiet", "--no-deps", wheel)
    assert made.returncode == 0, made.stderr
    return Path(sysconfig.get_path("scripts", "venv", paths))


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        str(path.relative_to(ROOT))
        for path in own_files()
        if path.is_relative_to(ROOT / "mcp_bridge")
    }
    assert ours - names == set()
    assert "mcp_bridge/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_nothing_but_the_package(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"mcp_bridge", f"mcp_bridge-{VERSION}.dist-info"}


def test_the_command_works_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    version = run(installed / "mcp-bridge", "version", cwd=tmp_path)
    assert version.returncode == 0, version.stderr
    assert VERSION in version.stdout
    where = run(
        installed / "python", "-c", "import mcp_bridge as m; print(m.__file__)", cwd=tmp_path
    )
    assert Path(where.stdout).is_relative_to(installed.parent)


def test_check_from_the_wheel_tells_good_from_bad(installed: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"inference_server": {"base_url": "http://127.0.0.1:11434/v1"}}')
    assert run(installed / "mcp-bridge", "check", cwd=tmp_path).returncode == 0
    config.write_text('{"inference_server": {"base_url": "nowhere"}}')
    bad = run(installed / "python", "-m", "mcp_bridge", "check", cwd=tmp_path)
    assert bad.returncode == 1
    assert "inference_server.base_url" in bad.stdout + bad.stderr


# Scripts and files


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_can_be_run_and_stops_at_its_first_failure(script: Path) -> None:
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert run("bash", "-n", script).returncode == 0


def test_the_scripts_run_bits_are_in_git() -> None:
    listed = run("git", "ls-files", "--stage", "scripts", ".ci")
    if listed.returncode:
        pytest.skip("needs a git checkout: run bits are in git")
    assert listed.stdout
    assert [line for line in listed.stdout.splitlines() if not line.startswith("100755")] == []


def test_no_document_names_the_package_of_another_project() -> None:
    """`mcp-bridge` on the public index is not ours: installing it by that name runs their code."""
    install = re.compile(
        r"(pip|pipx|uv tool|uv pip) (install|run)\s+(-\S+\s+)*[\"']?mcp[-_]bridge\b(?!\s*@)"
        r"|uvx\s+(-\S+\s+)*mcp[-_]bridge\b"
        r"|uv add\s+[\"']?mcp[-_]bridge\b"
    )
    assert found_in_own_files(install) == []


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    hosts = [("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("debian", "org")]
    names = [".".join(parts) for parts in hosts]
    folders = ["/".join(("", *parts)) for parts in (("work", "main"), ("work", "shared"))]
    assert found_in_own_files(re.compile("|".join(map(re.escape, names + folders)))) == []


def found_in_own_files(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in own_files()
        if path != Path(__file__)
        for match in pattern.finditer(path.read_text(errors="replace"))
    ]


def test_in_ci_a_test_that_would_be_skipped_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import pytest\ndef test_it(): pytest.skip('no Node')\n")
    shutil.copy(ROOT / "tests/conftest.py", tmp_path)
    pytest_here = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", ".")
    assert run(*pytest_here, cwd=tmp_path, CI="").returncode == 0
    in_ci = run(*pytest_here, cwd=tmp_path, CI="true")
    assert in_ci.returncode == 1
    assert "no Node" in in_ci.stdout
