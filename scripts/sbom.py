#!/usr/bin/env python3
"""Print the bill of materials of blocks of constraints.txt, CycloneDX 1.6: `scripts/sbom.py base otel embedded`.

Each version has the digests of all its files, of which a machine installs one. The same pins give the same bytes;
SOURCE_DATE_EPOCH says which day stands in it.
"""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from topicd import __version__

TOP = Path(__file__).resolve().parents[1]
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)(.*)$", re.MULTILINE)


def library(name: str, version: str, digests: list[str]) -> Component:
    """Return the component for one version. The digests are of its files, so they stand at its distribution."""
    purl = PackageURL("pypi", None, name, version)
    files = ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(str(purl)),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in digests],
    )
    return Component(name=name, version=version, bom_ref=str(purl), purl=purl, external_references=[files])


def bill(pins: str, project: Mapping[str, object], day_s: int) -> str:
    """Return the bill of materials of these pins.

    Args:
        pins: as `scripts/pins.sh` prints them.
        project: the table `project` of pyproject.toml.
        day_s: what stands as its time.
    """
    lines = PIN.findall(pins.replace("\\\n", " "))
    parts = [library(name, version, re.findall(r"sha256:(\w+)", rest)) for name, version, rest in lines]
    itself = Component(
        name=str(project["name"]),
        version=__version__,
        type=ComponentType.APPLICATION,
        bom_ref=str(project["name"]),
        description=str(project["description"]),
        licenses=[DisjunctiveLicense(id=str(project["license"]))],
    )
    named = set(re.findall(r"'([\w-]+)[\[<>=]", f"{project['dependencies']} {project['optional-dependencies']}"))
    made = Bom(
        components=parts,
        serial_number=uuid5(NAMESPACE_URL, f"{__version__}\n{pins}"),
        metadata=BomMetaData(component=itself, timestamp=datetime.fromtimestamp(day_s, UTC)),
    )
    made.register_dependency(itself, [part for part in parts if part.name in named])
    return JsonV1Dot6(made).output_as_string(indent=2)


def main(*blocks: str) -> int:
    """Print the bill of the blocks."""
    pins = subprocess.run([TOP / "scripts/pins.sh", *blocks], capture_output=True, text=True, check=True).stdout
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    sys.stdout.write(bill(pins, project, int(os.environ.get("SOURCE_DATE_EPOCH", "0"))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
