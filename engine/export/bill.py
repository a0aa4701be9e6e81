"""What an environment is made of, for whoever builds the same one elsewhere: packages, Dockerfile, SBOM."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[\w, -]+\])?==([^\s;\\]+)\s*(?:;\s*([^\\]*))?")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Package:
    """A pinned package. hashes: SHA-256 of each of its files. marker: where it is needed, "" everywhere."""

    name: str
    version: str
    hashes: tuple[str, ...]
    marker: str = ""


def packages_of(lock: str) -> list[Package]:
    """The pins of a lock (requirements with hashes), in its order."""
    found = []
    for entry in lock.replace("\\\n", " ").splitlines():
        pin = _PIN.match(entry.strip())
        if pin:
            name, version, marker = pin.group(1), pin.group(2), (pin.group(3) or "").split("--hash")[0].strip()
            found.append(Package(name, version, tuple(_HASH.findall(entry)), marker))
    return found


def cyclonedx(name: str, packages: list[Package]) -> dict[str, Any]:
    """The packages as a CycloneDX 1.6 bill of materials (ECMA-424). The hashes are those of distribution files, of
    which one is installed: they stand as properties, since a component's own hash can only be one file's."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "bom-ref": name}},
        "components": [
            {
                "type": "library",
                "bom-ref": _purl(each),
                "name": each.name,
                "version": each.version,
                "purl": _purl(each),
                "properties": [
                    *({"name": "slipway:sha256", "value": value} for value in each.hashes),
                    *([{"name": "slipway:marker", "value": each.marker}] if each.marker else []),
                ],
            }
            for each in packages
        ],
    }


def _purl(package: Package) -> str:
    name = re.sub(r"[-_.]+", "-", package.name).lower()
    return f"pkg:pypi/{name}@{package.version.replace('+', '%2B')}"


def dockerfile(python: str) -> str:
    """Builds the environment from `requirements.txt` beside it. python: the version, as in "3.11"."""
    return (
        f"FROM python:{python}-slim\n"
        # LightGBM and others need the compiler's OpenMP, which the slim image lacks.
        "RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*\n"
        # Where the lock names a CPU build of torch (…+cpu), the address of PyTorch's index is given with --build-arg.
        "ARG PIP_EXTRA_INDEX_URL\n"
        "COPY requirements.txt /tmp/requirements.txt\n"
        "RUN pip install --no-cache-dir --only-binary :all: --require-hashes -r /tmp/requirements.txt \\\n"
        " && rm /tmp/requirements.txt \\\n"
        " && useradd --create-home model\n"
        "USER model\n"
        "WORKDIR /home/model\n"
    )
