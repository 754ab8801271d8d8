#!/usr/bin/env python3
"""Prints the crates that programs are linked from, with their licences and the texts of these; or a
bill of materials without the crates that are not linked.

Use: licences.py PACKAGE...
     licences.py --materials FILE PACKAGE

FILE is CycloneDX as of cargo-cyclonedx. It has, too, what other members of the workspace turn on in
the crates, and must have all that is linked. Run in the workspace, of which PACKAGE is a package.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

NAMES = re.compile(r"(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(packages):
    """Names and versions of the crates of the registry below these packages."""
    named = [word for package in packages for word in ("-p", package)]
    lines = run(
        "cargo", "tree", "--locked", "-e", "normal", "--prefix", "none", "-f", "{p}", *named
    ).splitlines()
    # A crate of the workspace has its folder after the version.
    words = (line.removesuffix(" (*)").split() for line in lines if line)
    return {(name, version.lstrip("v")) for name, version, *rest in words if not_local(rest)}


def not_local(rest):
    return not any(word.startswith("(/") for word in rest)


def texts(crate):
    """Texts of the licence files of a crate."""
    files = sorted(Path(crate["manifest_path"]).parent.iterdir())
    return [
        file.read_text(errors="replace").strip()
        for file in files
        if file.is_file() and NAMES.match(file.name)
    ]


def materials(file, package):
    """Prints the bill of materials with what is linked, and what is of the workspace."""
    bill = json.loads(Path(file).read_text())
    wanted = linked([package])

    def is_kept(component):
        is_local = component["bom-ref"].startswith("path+file:")
        return is_local or (component["name"], component["version"]) in wanted

    kept = [component for component in bill["components"] if is_kept(component)]
    missing = wanted - {(component["name"], component["version"]) for component in kept}
    if missing:
        sys.exit(f"licences.py: {file} lacks {sorted(missing)}, which {package} is linked from")
    names = {component["bom-ref"] for component in kept}
    names.add(bill["metadata"]["component"]["bom-ref"])
    bill["components"] = kept
    bill["dependencies"] = [
        {**edges, "dependsOn": [name for name in edges.get("dependsOn", []) if name in names]}
        for edges in bill["dependencies"]
        if edges["ref"] in names
    ]
    print(json.dumps(bill, indent=2, ensure_ascii=False))


def main(packages):
    wanted = linked(packages)
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version", "1"))
    found = [crate for crate in metadata["packages"] if (crate["name"], crate["version"]) in wanted]
    assert len(found) == len(wanted), "cargo tree and cargo metadata name the same crates"
    print(f"Crates in {' and '.join(packages)}, and their licences.\n")
    release = run("rustc", "--version").split()[1]
    print(f"Rust standard library {release}: MIT OR Apache-2.0; https://github.com/rust-lang/rust")
    users = {}
    for crate in sorted(found, key=lambda crate: (crate["name"], crate["version"])):
        name = f"{crate['name']} {crate['version']}"
        if not crate["license"]:
            sys.exit(f"licences.py: {name} states no licence")
        print(f"{name}: {crate['license']}; {crate['repository'] or 'no repository'}")
        for author in crate["authors"]:
            print(f"    {author}")
        for text in texts(crate) or ["The crate has no file with the text of its licence."]:
            users.setdefault(text, []).append(name)
    for text, names in users.items():
        print(f"\n{'-' * 80}\n{', '.join(names)}:\n\n{text}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--materials", file, package]:
            materials(file, package)
        case [] | ["--materials", *_]:
            sys.exit(__doc__)
        case packages:
            main(packages)
