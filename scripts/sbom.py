"""Write what a release stands on, for ``make sbom``: a bill of materials in CycloneDX's format.

It lists what this environment holds of the package's dependencies and extras, and of theirs, with
versions and licences; not what only developers need, and nothing of this machine. An extra that is
not installed is not listed.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
_NOT_RELEASED = ("bench", "dev", "notebook")  # extras of ours that serve work on the project


def needs(
    project: Mapping[str, Any], requires: Callable[[str], list[str] | None]
) -> dict[str, list[str]]:
    """What the package, under "", and each package that it leads to need, by name.

    Args:
        requires: the requirements of a package as its metadata has them; None of one that is not
            there.
    """
    extras = project["optional-dependencies"]
    lines = list(project["dependencies"])
    lines += [line for name, part in extras.items() if name not in _NOT_RELEASED for line in part]
    own = {canonicalize_name(project["name"])}
    found: dict[str, set[str]] = {"": set()}
    left = [("", Requirement(line)) for line in lines]
    seen = set()
    while left:
        user, needed = left.pop()
        name = canonicalize_name(needed.name)
        told = requires(name)
        if name in own or told is None:
            continue
        found[user].add(name)
        if (name, frozenset(needed.extras)) in seen:
            continue
        seen.add((name, frozenset(needed.extras)))
        found.setdefault(name, set())
        for line in map(Requirement, told):
            asked = [{"extra": extra} for extra in ("", *needed.extras)]
            if line.marker is None or any(map(line.marker.evaluate, asked)):
                left.append((name, line))
    return {user: sorted(names) for user, names in found.items()}


def released(
    found: dict[str, Any],
    needs: Mapping[str, list[str]],
    licence: Callable[[str], str | None] = lambda name: None,
) -> dict[str, Any]:
    """A bill of an environment without what the package does not lead to.

    Args:
        licence: what a package says of its own in words; the tool takes identifiers of SPDX only.
    """
    components = [c for c in found["components"] if canonicalize_name(c["name"]) in needs]
    for component in components:
        if not component.get("licenses") and (words := licence(component["name"])):
            component["licenses"] = [{"license": {"name": words}}]
    refs = {canonicalize_name(c["name"]): c["bom-ref"] for c in components}
    refs[""] = found["metadata"]["component"]["bom-ref"]
    dependencies = [
        {"ref": refs[user], "dependsOn": sorted(refs[name] for name in names)}
        for user, names in needs.items()
    ]
    return {**found, "components": components, "dependencies": dependencies}


def _requires(name: str) -> list[str] | None:
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        return None


def _licence(name: str) -> str | None:
    """The first line of what the metadata has; some hold the whole text."""
    words = (distribution(name).metadata["License"] or "").strip()
    return words.splitlines()[0][:100] if words else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "sbom.json")
    out = parser.parse_args().out
    command = ["cyclonedx_py", "environment", sys.executable, "--output-reproducible"]
    said = subprocess.run(
        [sys.executable, "-m", *command, "--pyproject", str(ROOT / "pyproject.toml")],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bill = released(json.loads(said.stdout), needs(project, _requires), _licence)
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(bill, indent=1) + "\n")
    print(f"{out}: {len(bill['components'])} packages")
    if without := [c["name"] for c in bill["components"] if not c.get("licenses")]:
        print(f"without a word on their licence: {', '.join(without)}")


if __name__ == "__main__":
    main()
