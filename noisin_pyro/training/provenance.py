"""Provenance: what results depend on in addition to the configuration."""

from __future__ import annotations

import functools
import json
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import torch


def provenance(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Commit, versions, processor, device, threads and number of processes, for ``config.json``."""
    return {
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("noisin_pyro", "torch", "pyro-ppl", "numpy")},
        },
        "processor": processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": processes,
    }


@functools.cache
def commit() -> str | None:
    """The commit of this package, with ``-dirty`` after it where tracked files differ from it; ``None`` if unknown."""
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        return None
    installed = distribution("noisin_pyro").read_text("direct_url.json") or "{}"  # as pip leaves it: PEP 610
    return json.loads(installed).get("vcs_info", {}).get("commit_id")


@functools.cache
def processor() -> str:
    """The processor's model, as the operating system names it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
