"""Locate the files of a data set: in the user's folder, in the cache, or on the network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from noisin_pyro.data.specs import DatasetSpec, FileSpec

# Two hosts that serve the same commit, tried in this order. SHA-256 verifies what they send.
MIRRORS = (
    "https://raw.githubusercontent.com/{repository}/{commit}/{path}",
    "https://cdn.jsdelivr.net/gh/{repository}@{commit}/{path}",
)


def locate(name: str, spec: DatasetSpec, root: str | Path | None = None) -> list[Path]:
    """Paths of the files of a data set, verified by SHA-256.

    If ``root`` is given, the files are searched for there only. Else the order is: the folder given by the environment
    variable ``NOISIN_DATA``; the cache, which is ``NOISIN_CACHE`` or the operating system's cache folder; the network,
    from which they are downloaded to the cache. ``root`` and ``NOISIN_DATA`` are never written to.

    Args:
        name: name of the data set in errors.
        spec: the data set.
        root: folder with ``ptb/``, ``wikitext-2/`` and ``polyphonic/``, or with the files themselves.

    Raises:
        ValueError: a ``root`` without the files; a ``NOISIN_DATA`` that is not a folder; a file in either that is
            truncated or has other content; a cache that cannot be written; a download that failed from every mirror.
    """
    if root is not None:
        if paths := _find_in_folder(Path(root).expanduser(), name, spec):
            return paths
        raise ValueError(
            f"{name!r} is not in root={str(root)!r}; expected {_relative_paths(spec)}, or the files without their "
            "folder; leave root out to search NOISIN_DATA, the cache and the network"
        )
    if folder := os.path.expanduser(os.environ.get("NOISIN_DATA", "")):
        if not Path(folder).is_dir():
            raise ValueError(f"NOISIN_DATA={folder!r} is not a folder; correct or unset that environment variable")
        if paths := _find_in_folder(Path(folder), name, spec):
            return paths
    return _fill_cache(name, spec)


def _find_in_folder(folder: Path, name: str, spec: DatasetSpec) -> list[Path]:
    """The files in a user's folder, with or without subfolder; empty if one is missing."""
    for paths in ([folder / file.path for file in spec.files], [folder / file.name for file in spec.files]):
        if all(path.is_file() for path in paths):
            for file, path in zip(spec.files, paths, strict=True):
                _verify(file, path, name)
            return paths
    return []


def _verify(file: FileSpec, path: Path, name: str) -> None:
    try:
        difference = file.difference(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); pass a readable folder as root") from error
    if difference:
        raise ValueError(
            f"{path} is not the published file of {name!r}: {difference}; replace it, or remove it and leave root out "
            "to download it; to load your own data pass their path (--data FOLDER or FILE.mat)"
        )


def cache_folder() -> Path:
    """The folder given by the environment variable ``NOISIN_CACHE``, or the operating system's cache folder."""
    import pooch  # slow to import

    return Path(os.environ.get("NOISIN_CACHE") or pooch.os_cache("noisin_pyro")).expanduser()


def _fill_cache(name: str, spec: DatasetSpec) -> list[Path]:
    """The files in the cache, after downloading those that are missing or damaged."""
    cache = cache_folder()
    paths = [cache / file.path for file in spec.files]
    try:
        missing = [file for file, path in zip(spec.files, paths, strict=True) if not _is_intact(file, path)]
        if missing:
            size = sum(file.size for file in missing)
            print(f"Downloading {name!r} ({size / 1e6:.1f} MB) to {cache}. {spec.license}", file=sys.stderr)
        for file in missing:
            _download(file, cache / file.path, name, spec)
    except OSError as error:
        raise ValueError(
            f"the cache {str(cache)!r} cannot be used ({error.strerror or type(error).__name__}); set the environment "
            "variable NOISIN_CACHE to a writable folder"
        ) from error
    return paths


def _is_intact(file: FileSpec, path: Path) -> bool:
    return path.is_file() and file.difference(path) is None


def _download(file: FileSpec, path: Path, name: str, spec: DatasetSpec) -> None:
    """Download a file from the first mirror that has it. pooch moves it to ``path`` only after verifying it."""
    import pooch

    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for mirror in MIRRORS:
        source = f"{spec.folder}/{file.name}"
        url = mirror.format(repository=spec.repository, commit=spec.commit, path=source)
        try:
            pooch.retrieve(url, f"sha256:{file.sha256}", path.name, path.parent, progressbar=sys.stderr.isatty())
            return
        except (OSError, ValueError) as error:  # errors of the network are OSErrors without errno
            if isinstance(error, PermissionError) or getattr(error, "errno", None) is not None:
                raise  # an error of the cache, such as a full disk: another mirror would not help
            failures.append(f"{url} ({_reason(error)})")
    raise ValueError(
        f"{name!r} could not be downloaded: {', '.join(failures)}; check the network connection, or "
        f"pass as root, or set NOISIN_DATA to, a folder with {_relative_paths(spec)}"
    )


def _reason(error: OSError | ValueError) -> str:
    """Why a mirror failed, in a few words; the messages of the network libraries are a paragraph long."""
    if not isinstance(error, OSError):
        return "sent a file with a different SHA-256"
    response = getattr(error, "response", None)
    return type(error).__name__ if response is None else f"{response.status_code} {response.reason}"


def _relative_paths(spec: DatasetSpec) -> str:
    return ", ".join(file.path for file in spec.files)
