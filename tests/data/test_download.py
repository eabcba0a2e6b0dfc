"""Where the files of a named data set come from, with a local server as the network."""

import errno
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from noisin_pyro.cli import main
from noisin_pyro.data import download, load
from noisin_pyro.data.download import locate
from noisin_pyro.data.specs import DatasetSpec, FileSpec

SPLITS = ("train", "valid", "test")


class Server(ThreadingHTTPServer):
    """Serves the small text at ``/one/...`` and ``/two/...``, except for mirrors with a fault.

    Attributes:
        faults: what each faulty mirror does: a status, ``"cut"``, ``"other"`` or ``"silent"``.
        requests: the requested paths, in order.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = {f"ptb.{split}.txt": (folder / f"{split}.txt").read_bytes() for split in SPLITS}
        self.faults: dict[str, int | str] = {}
        self.requests: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        _, mirror, *_, name = self.path.split("/")
        content = self.server.content[name]
        match self.server.faults.get(mirror, 200):
            case "silent":
                return
            case "cut":
                self._answer(200, content[:-5], len(content))
            case "other":
                self._answer(200, b"x" * len(content), len(content))
            case int(status):
                self._answer(status, content, len(content))

    def _answer(self, status: int, content: bytes, announced: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        here = f"http://127.0.0.1:{server.server_port}"
        paths = "{repository}/{commit}/{path}"
        monkeypatch.setattr(download, "MIRRORS", (f"{here}/one/{paths}", f"{here}/two/{paths}"))
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NOISIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files_below(cache: Path) -> set[str]:
    """All files below the cache, including hidden and partial ones."""
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file()}


WHOLE = {f"ptb/ptb.{split}.txt" for split in SPLITS}


def put(folder: Path, there: Path) -> Path:
    """Copy the small text to the file names of Penn Treebank."""
    there.mkdir(parents=True)
    for split in SPLITS:
        (there / f"ptb.{split}.txt").write_bytes((folder / f"{split}.txt").read_bytes())
    return there


def test_the_first_load_downloads_and_names_the_license_and_the_next_reads_the_cache(
    toy: DatasetSpec, server: Server, cache: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = load("ptb")
    assert server.requests == [f"/one/some/repository/c0ffee/data/ptb.{split}.txt" for split in SPLITS]
    assert files_below(cache) == WHOLE
    assert capsys.readouterr().err.count("A license for tests.") == 1
    second = load("ptb")
    assert first.vocabulary == second.vocabulary
    assert len(server.requests) == 3
    assert "license" not in capsys.readouterr().err


@pytest.mark.parametrize("fault", [404, 500, "cut", "other", "silent"])
def test_the_second_mirror_is_used_if_the_first_fails(
    toy: DatasetSpec, server: Server, cache: Path, fault: int | str
) -> None:
    server.faults["one"] = fault
    paths = locate("ptb", toy)
    assert [file.difference(path) for file, path in zip(toy.files, paths, strict=True)] == [None] * 3
    assert [path.split("/")[1] for path in server.requests] == ["one", "two"] * 3
    assert files_below(cache) == WHOLE


def test_both_mirrors_failing_is_an_error_in_one_line_and_leaves_no_files(
    toy: DatasetSpec, server: Server, cache: Path
) -> None:
    server.faults |= {"one": 404, "two": "other"}
    with pytest.raises(ValueError) as failure:
        load("ptb")
    message = str(failure.value)
    assert "\n" not in message
    for mirror, reason in (("one", "404 Not Found"), ("two", "sent a file with a different SHA-256")):
        url = f"http://127.0.0.1:{server.server_port}/{mirror}/some/repository/c0ffee/data/ptb.train.txt"
        assert f"{url} ({reason})" in message
    assert "pass as root" in message and "NOISIN_DATA" in message and "ptb/ptb.train.txt" in message
    assert files_below(cache) == set()


@pytest.mark.parametrize("fault", ["cut", "silent"])
def test_a_broken_connection_leaves_no_files(toy: DatasetSpec, server: Server, cache: Path, fault: str) -> None:
    server.faults |= {"one": fault, "two": fault}
    with pytest.raises(ValueError, match=r"could not be downloaded.*Error\), .*Error\); check the network"):
        load("ptb")
    assert files_below(cache) == set()


def test_without_a_network_the_command_ends_with_an_error_message(
    toy: DatasetSpec, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", "ptb"]) == 2
    *before, last = capfd.readouterr().err.splitlines()
    assert "A license for tests." in before[0]
    assert last.startswith("noisin: 'ptb' could not be downloaded") and last.count("(ConnectionError)") == 2


def test_an_interrupted_download_leaves_no_files(
    toy: DatasetSpec, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(url: str, output: str, pooch: object) -> None:
        Path(output).write_text("half of")
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar: interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("ptb")
    assert files_below(cache) == set()


def test_a_damaged_file_of_the_cache_is_fetched_again_and_no_other(
    toy: DatasetSpec, server: Server, cache: Path
) -> None:
    paths = locate("ptb", toy)
    server.requests.clear()
    paths[1].write_text("the dog\n")
    assert locate("ptb", toy) == paths
    assert server.requests == ["/one/some/repository/c0ffee/data/ptb.valid.txt"]
    assert toy.files[1].difference(paths[1]) is None


@pytest.mark.parametrize("below", ["ptb", "."])
def test_the_search_goes_root_then_environment_then_cache_then_network(
    toy: DatasetSpec,
    server: Server,
    cache: Path,
    folder: Path,
    tmp_path: Path,
    below: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = [locate("ptb", toy)[0].parent]  # network, to the cache
    assert len(server.requests) == 3
    there = put(folder, tmp_path / "environment" / below)
    monkeypatch.setenv("NOISIN_DATA", str(tmp_path / "environment"))
    folders.append(locate("ptb", toy)[0].parent)
    given = put(folder, tmp_path / "root" / below)
    folders.append(locate("ptb", toy, tmp_path / "root")[0].parent)
    assert folders == [cache / "ptb", there, given]
    assert len(server.requests) == 3


def test_a_root_without_the_files_is_an_error_though_the_cache_has_them(
    toy: DatasetSpec, server: Server, cache: Path, tmp_path: Path
) -> None:
    load("ptb")
    (tmp_path / "root").mkdir()
    with pytest.raises(ValueError, match=r"'ptb' is not in root=.*expected ptb/ptb\.train\.txt.*leave root out"):
        load("ptb", tmp_path / "root")


def test_a_folder_of_the_environment_may_lack_the_files_but_must_be_a_folder(
    toy: DatasetSpec, server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOISIN_DATA", str(tmp_path))
    assert locate("ptb", toy)[0] == cache / "ptb" / "ptb.train.txt"
    monkeypatch.setenv("NOISIN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"NOISIN_DATA=.*nowhere' is not a folder"):
        locate("ptb", toy)


@pytest.mark.parametrize("by", ["root", "environment"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-9], r"ptb\.train\.txt is not the published file of 'ptb': it has \d+ of \d+ bytes"),
        (lambda text: text.replace(b"cat", b"cow"), "SHA-256 starts with"),
        (lambda text: text.replace(b"\n", b"\r\n"), "SHA-256 starts with"),
    ],
    ids=["cut short", "edited", "other line ends"],
)
def test_a_damaged_file_of_the_user_is_an_error_and_is_not_changed(
    toy: DatasetSpec, server: Server, cache: Path, folder: Path, tmp_path: Path, change, message: str, by: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    there = put(folder, tmp_path / "data" / "ptb")
    damaged = change((there / "ptb.train.txt").read_bytes())
    (there / "ptb.train.txt").write_bytes(damaged)
    if by == "environment":
        monkeypatch.setenv("NOISIN_DATA", str(tmp_path / "data"))
    with pytest.raises(ValueError, match=f"{message}.*pass their path"):
        load("ptb", tmp_path / "data" if by == "root" else None)
    assert (there / "ptb.train.txt").read_bytes() == damaged
    assert not server.requests and not cache.exists()


def test_an_unreadable_file_of_the_user_is_an_error(
    toy: DatasetSpec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(file: FileSpec, path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(FileSpec, "difference", unreadable)
    put(folder, tmp_path / "root")
    with pytest.raises(
        ValueError, match=r"ptb\.train\.txt cannot be read \(Permission denied\); pass a readable folder as root"
    ):
        load("ptb", tmp_path / "root")


def test_an_unusable_cache_is_an_error(
    toy: DatasetSpec, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("NOISIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"the cache .*file' cannot be used .*NOISIN_CACHE to a writable folder"):
        load("ptb")
    monkeypatch.setenv("NOISIN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "ptb" / "ptb.train.txt").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"the cache .*cache' cannot be used \(Is a directory\)"):
        load("ptb")


def test_a_full_disk_is_not_blamed_on_a_mirror(toy: DatasetSpec, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(url: str, output: str, pooch: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda url, progressbar: full)
    with pytest.raises(
        ValueError, match=r"the cache .* cannot be used \(No space left on device\); set .*NOISIN_CACHE"
    ):
        load("ptb")
    assert files_below(cache) == set()


def test_the_default_cache_is_that_of_the_operating_system(
    toy: DatasetSpec, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOISIN_CACHE")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "system" / project)
    assert locate("ptb", toy)[0] == tmp_path / "system" / "noisin_pyro" / "ptb" / "ptb.train.txt"


def test_a_tilde_in_the_variables_is_the_home_folder(
    folder: Path, toy: DatasetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for split in SPLITS:
        (folder / f"{split}.txt").rename(tmp_path / "data" / f"ptb.{split}.txt")
    monkeypatch.setenv("NOISIN_DATA", "~/data")
    assert locate("ptb", toy) == [tmp_path / "data" / f"ptb.{split}.txt" for split in SPLITS]
    monkeypatch.setenv("NOISIN_DATA", "~/nowhere")
    with pytest.raises(ValueError, match=rf"NOISIN_DATA='{tmp_path}/nowhere' is not a folder"):
        locate("ptb", toy)
    monkeypatch.delenv("NOISIN_DATA")
    monkeypatch.setenv("NOISIN_CACHE", "~/cache")
    with pytest.raises(ValueError, match="could not be downloaded"):
        locate("ptb", toy)
    assert not (tmp_path / "~").exists()
