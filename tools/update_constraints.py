"""Regenerate ``constraints.txt``: ``python tools/update_constraints.py``, with ``--upgrade`` for the latest versions.

pip resolves the package with all its extras as for an empty environment, but installs nothing. Run it with the oldest
supported Python. Without ``--upgrade`` pins that still satisfy ``pyproject.toml`` stay.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = """\
# Versions that are tested together, with a CPU build of torch. Regenerate: python tools/update_constraints.py
# Use: pip install -c constraints.txt -e ".[dev,docs,notebooks]"
"""
CUDA = ("cuda-", "nvidia-", "triton")  # come with PyPI's torch on Linux, not with a CPU build


def resolve(upgrade: bool) -> dict[str, str]:
    """The version of each package that pip would install, the package itself left out."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    command += [] if upgrade else ["-c", str(CONSTRAINTS)]
    command += ["-e", f"{ROOT}[dev,docs,notebooks,benchmarks]"]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    packages = [item["metadata"] for item in json.loads(report)["install"]]
    versions = {package["name"]: package["version"].partition("+")[0] for package in packages}  # 2.13.0+cpu
    return {name: version for name, version in versions.items() if name != "noisin_pyro" and not name.startswith(CUDA)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Regenerate constraints.txt.")
    parser.add_argument("--upgrade", action="store_true", help="take the latest versions, not those pinned now")
    versions = resolve(parser.parse_args().upgrade)
    lines = [f"{name}=={versions[name]}\n" for name in sorted(versions, key=str.lower)]
    CONSTRAINTS.write_text(HEADER + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
