"""The CSV log."""

from pathlib import Path

import pytest

from noisin_pyro.training.rundir import metrics_log


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [{"epoch": 1, "valid_nats": 5.12345678, "gamma_1": 0.3}, {"epoch": 2, "valid_nats": 4.5, "gamma_1": 0.25}]
    for row in rows:
        metrics_log.append(path, row)
    assert path.read_text().splitlines() == ["epoch,valid_nats,gamma_1", "1,5.12346,0.3", "2,4.5,0.25"]
    assert metrics_log.read(path) == [pytest.approx(row, rel=1e-5) for row in rows]
    assert metrics_log.read(path) == metrics_log.rounded(rows)


ROWS = [
    {"epoch": 1.0, "valid_nats": 5.12346, "learning_rate": 0.001, "seconds": 1234.5},
    {"epoch": 2.0, "valid_nats": 4.5, "learning_rate": 1e-05, "seconds": 0.25},
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    metrics_log.rewrite(tmp_path / "log.csv", ROWS)
    return tmp_path / "log.csv"


def with_decimal_commas(text: str) -> str:
    return text.replace(",", ";").replace(".", ",")


SAVED = {
    "with a mark": lambda text: "\ufeff" + text,
    "with bare line feeds": lambda text: text.replace("\r\n", "\n"),
    "quoted": lambda text: "\r\n".join(",".join(f'"{c}"' for c in row.split(",")) for row in text.splitlines()),
    "with empty rows and columns": lambda text: text.replace("\r\n", ",,\r\n") + ",,,,,\r\n\r\n",
    "semicolons and decimal commas": with_decimal_commas,
    "semicolons and decimal points": lambda text: text.replace(",", ";"),
    "tabs": lambda text: text.replace(",", "\t"),
    "tabs, a mark and decimal commas": lambda text: "\ufeff" + text.replace(",", "\t").replace(".", ","),
    "decimal points and thousands": lambda text: text.replace("1234.5", '"1,234.5"'),
    "decimal commas and thousands": lambda text: with_decimal_commas(text).replace("1234,5", "1.234,5"),
    "decimal commas and spaces": lambda text: with_decimal_commas(text).replace("1234,5", " 1\u202f234,5"),
    "spaces": lambda text: text.replace(",4.5,", ",  4.5 ,").replace("1234.5", "1 234.5"),
    "Swiss thousands": lambda text: text.replace(",", ";").replace("1234.5", "1’234.5"),
    "exponents": lambda text: text.replace("0.001", "1.00E-03").replace("1e-05", "+1E-5"),
}


@pytest.mark.parametrize("program", SAVED)
def test_what_a_spreadsheet_program_saves_is_read(log: Path, program: str) -> None:
    log.write_bytes(SAVED[program](log.read_bytes().decode()).encode())
    assert metrics_log.read(log) == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_unicode_text_of_a_spreadsheet_program_is_read(log: Path, encoding: str) -> None:
    text = log.read_bytes().decode().replace(",", "\t")
    log.write_bytes(("\ufeff" * (encoding == "utf-16-be") + text).encode(encoding))
    assert metrics_log.read(log) == ROWS


@pytest.mark.parametrize(
    ("number", "value"), [("12,346", None), ("12.346", None), ("1.234.567", None), ("1,234,567.5", 1234567.5)]
)
def test_what_may_be_thousands_needs_a_known_decimal_mark(log: Path, number: str, value: float | None) -> None:
    log.write_text(f"epoch;seconds\n1;{number}\n")
    if value is None:
        with pytest.raises(ValueError, match=f"seconds is '{number}', not a number"):
            metrics_log.read(log)
    else:
        assert metrics_log.read(log) == [{"epoch": 1, "seconds": value}]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",4.5,", ',"4,512",', "row 2: valid_nats is '4,512'"),
        (",4.5,", ',"4,5",', "row 2: valid_nats is '4,5'"),
        ("1234.5", "1 23 4.5", "row 1: seconds is '1 23 4.5'"),
        ("1234.5", '"12,34.5"', "row 1: seconds is '12,34.5'"),
        (",4.5,", ",04. May,", r"row 2: valid_nats is '04\. May', not a number"),
        ("5.12346", "######", "row 1: valid_nats is '######'"),
        (",0.25", "", "row 2: seconds is None"),
        ("0.25", "0.25,7", r"row 2: None is \['7'\]"),
        ("0.25", "", "row 2: seconds is ''"),
        (",4.5,", ',"4.5,', "row 2: "),
        ("epoch", "\xff", "row 1"),
    ],
)
def test_a_damaged_log_names_the_row_and_the_value(log: Path, old: str, new: str, message: str) -> None:
    log.write_bytes(log.read_bytes().replace(old.encode(), new.encode("latin1"), 1))
    with pytest.raises(ValueError, match=f"({message}|row 1 of .*log.csv is not)") as refused:
        metrics_log.require_whole(metrics_log.read(log), log)
    assert str(log) in str(refused.value)


def test_a_full_disk_is_reported_with_the_name_of_the_log(log: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
    try:
        for write in (lambda: metrics_log.append(log, ROWS[0]), lambda: metrics_log.rewrite(log, 9 * ROWS)):
            with pytest.raises(OSError, match=r"log\.csv"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert metrics_log.read(log) == ROWS
