"""Prints constraints.txt anew: the versions of an environment, as `make constraints` calls it.

    python .ci/constraints.py constraints.txt [FOLDER of more packages ...]

Kept from the old file: its head, and whole lines with a reason (`# held: ...`). Left out: pairmill itself, installers,
and what torch pins to one version by itself (CUDA, Triton). Where two folders have a package, the environment counts.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

OLDEST = "3.10"  # the oldest Python that pairmill runs on
LEFT_OUT = re.compile(r"pairmill|pip|setuptools|wheel|dall-e|nvidia-.+|cuda-.+|triton")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def line_of(found: metadata.Distribution) -> str:
    python = SpecifierSet(found.metadata["Requires-Python"] or "")
    newer = not python.contains(f"{OLDEST}.99")
    return f"{found.metadata['Name']}=={found.version}" + (' ; python_version >= "3.11"' if newer else "")


def main(old: str, *folders: str) -> None:
    lines = Path(old).read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if line.startswith("#")]
    kept = {canonical(line.split("==")[0]): line for line in lines if "# held:" in line and line not in head}
    for path in (sys.path, *([folder] for folder in folders)):
        for found in metadata.distributions(path=path):
            name = canonical(found.metadata["Name"])
            if not LEFT_OUT.fullmatch(name) and not found.read_text("direct_url.json"):  # a file or editable
                kept.setdefault(name, line_of(found))
    print(*head, *(kept[name] for name in sorted(kept)), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
