"""The lock file holds what the package, its tests and a build ask for, each by its hashes."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LINUX = {"sys_platform": "linux", "platform_machine": "x86_64"}


def locked():
    """Versions by name, of every Python."""
    text = (ROOT / "requirements-lock.txt").read_text().replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        need, *hashes = line.split(" --hash=")
        assert hashes
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", one.strip()) for one in hashes), line
        requirement = Requirement(need.strip())
        (version,) = requirement.specifier
        assert version.operator == "=="
        found.setdefault(canonicalize_name(requirement.name), []).append(version.version)
    return found


def test_every_need_is_met_and_no_registry_named():
    with (ROOT / "pyproject.toml").open("rb") as file:
        document = tomllib.load(file)
    project = document["project"]
    needs = [*project["dependencies"], *document["build-system"]["requires"]]
    for extra in ("test", "dev"):
        needs += project["optional-dependencies"][extra]
    versions = locked()
    for need in map(Requirement, needs):
        if need.marker is None or need.marker.evaluate(LINUX):
            found = versions.get(canonicalize_name(need.name), [])
            assert found, f"{need}: run .ci/lock"
            assert all(need.specifier.contains(one, prereleases=True) for one in found), need
    assert "://" not in (ROOT / "requirements-lock.txt").read_text()
