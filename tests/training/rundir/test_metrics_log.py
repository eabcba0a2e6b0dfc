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
