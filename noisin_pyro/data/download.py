"""The files of a data set by name: from the user's folder, from the cache, or from the network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pooch

from noisin_pyro.data.specs import DatasetSpec, FileSpec

# Two hosts of the same commit. The second is taken on its word that it serves what the first does; SHA-256 decides.
MIRRORS = (
    "https://raw.githubusercontent.com/{repository}/{commit}/{path}",
    "https://cdn.jsdelivr.net/gh/{repository}@{commit}/{path}",
)


def locate(name: str, known: DatasetSpec, root: str | Path | None = None) -> list[Path]:
    """Paths of the set's files, each the same as the published one byte for byte.

    The search goes: ``root``, and nowhere else if it is given; the folder that the environment variable
    ``NOISIN_DATA`` names; the cache, a folder of the operating system's or the one that ``NOISIN_CACHE`` names; the
    network, from which the cache is filled. Nothing is ever written to the first two. Before a set's first download
    its license is told on stderr.

    Args:
        name: what the set is called in errors.
        known: the set.
        root: the folder with ``ptb/``, ``wikitext-2/`` and ``polyphonic/``, or with the files themselves.

    Raises:
        ValueError: a ``root`` without the files, a ``NOISIN_DATA`` that is no folder, a file there that is cut short
            or differs otherwise; a cache that cannot be written; a download that failed from every mirror.
    """
    if root is not None:
        if found := _below(Path(root), name, known):
            return found
        raise ValueError(
            f"{name!r} is not in root={str(root)!r}; expected {_wanted(known)}, or the files without their folder; "
            "leave root out to have it from NOISIN_DATA, the cache or the network"
        )
    if folder := os.environ.get("NOISIN_DATA"):
        if not Path(folder).is_dir():
            raise ValueError(f"NOISIN_DATA={folder!r} is not a folder; correct or unset that environment variable")
        if found := _below(Path(folder), name, known):
            return found
    return _cached(name, known)


def _below(folder: Path, name: str, known: DatasetSpec) -> list[Path]:
    """The files in a folder of the user's, in either layout; none if one is missing."""
    for paths in ([folder / file.path for file in known.files], [folder / file.name for file in known.files]):
        if all(path.is_file() for path in paths):
            for file, path in zip(known.files, paths, strict=True):
                _require(file, path, name)
            return paths
    return []


def _require(file: FileSpec, path: Path, name: str) -> None:
    try:
        difference = file.difference(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); give root, a folder that can") from error
    if difference:
        raise ValueError(
            f"{path} is not the file that is known as {name!r}: {difference}; replace it, or remove it and leave root "
            "out to have it downloaded; data of your own are read by their path (--data FOLDER or FILE.mat)"
        )


def _cached(name: str, known: DatasetSpec) -> list[Path]:
    cache = Path(os.environ.get("NOISIN_CACHE") or pooch.os_cache("noisin_pyro"))
    paths = [cache / file.path for file in known.files]
    try:
        absent = [file for file, path in zip(known.files, paths, strict=True) if not _intact(file, path)]
        if absent:
            size = sum(file.size for file in absent)
            print(f"Downloading {name!r} ({size / 1e6:.1f} MB) to {cache}. {known.license}", file=sys.stderr)
        for file in absent:
            _download(file, cache / file.path, name, known)
    except OSError as error:
        raise ValueError(
            f"the cache {str(cache)!r} cannot be used ({error.strerror or type(error).__name__}); set the environment "
            "variable NOISIN_CACHE to a folder that can be written"
        ) from error
    return paths


def _intact(file: FileSpec, path: Path) -> bool:
    return path.is_file() and file.difference(path) is None


def _download(file: FileSpec, path: Path, name: str, known: DatasetSpec) -> None:
    """One file, from the first mirror that has it; put in its place only when it is whole and the right one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for mirror in MIRRORS:
        source = f"{known.folder}/{file.name}"
        url = mirror.format(repository=known.repository, commit=known.commit, path=source)
        try:
            pooch.retrieve(url, f"sha256:{file.sha256}", path.name, path.parent, progressbar=sys.stderr.isatty())
            return
        except (OSError, ValueError) as error:  # the network's errors are OSErrors without a number
            if isinstance(error, PermissionError) or getattr(error, "errno", None) is not None:
                raise  # the cache's fault, of which another mirror is no remedy
            failures.append(f"{url} ({_reason(error)})")
    raise ValueError(
        f"{name!r} could not be downloaded: {', '.join(failures)}; go online, or give root, or set "
        f"NOISIN_DATA to, a folder with {_wanted(known)}"
    )


def _reason(error: OSError | ValueError) -> str:
    """Why a mirror failed, in few words: the network's own messages fill a paragraph."""
    if not isinstance(error, OSError):
        return "sent another file: its SHA-256 differs"
    response = getattr(error, "response", None)
    return type(error).__name__ if response is None else f"{response.status_code} {response.reason}"


def _wanted(known: DatasetSpec) -> str:
    return ", ".join(file.path for file in known.files)
