"""``noisin evaluate``: a run's numbers, computed again from its folder."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from noisin_pyro.cli import main
from noisin_pyro.training.build import load_corpus
from noisin_pyro.training.config import from_json


def _result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def _read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("network", [".", "deterministic"])
def test_the_mean_is_the_run_s_own_to_the_last_digit(run: Path, tmp_path: Path, split: str, network: str) -> None:
    assert main(["evaluate", str(run / network), "--split", split, "--json", str(tmp_path / "found.json")]) == 0
    result = json.loads((tmp_path / "found.json").read_text())
    assert (result.pop("folder"), result.pop("split")) == (str(run / network), split)
    assert result == _result(run / network)[split]


def test_the_music_s_too_and_each_step_of_each_sequence(music: Path, tmp_path: Path) -> None:
    file = tmp_path / "steps.csv"
    assert main(["evaluate", str(music), "--per-token", str(file)]) == 0
    head, *rows = _read(file)
    assert head == ["sequence", "step", "log_prob"]
    lengths = (4, 6, 3)
    assert [(int(n), int(t)) for n, t, _ in rows] == [(n, t + 1) for n in (1, 2, 3) for t in range(lengths[n - 1])]
    assert -sum(float(value) for *_, value in rows) / 13 == pytest.approx(_result(music)["test"]["nats_per_step"])


def test_the_table_of_music_has_nats_and_no_perplexity(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(music)]) == 0
    shown = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert "nats per step" in shown and "perplexity" not in shown


def test_every_token_has_its_log_probability_in_the_text_s_order(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    assert main(["evaluate", str(run), "--per-token", str(file), "--method", "ensemble", "--samples", "3"]) == 0
    head, *rows = _read(file)
    assert head == ["token", "log_prob"]
    assert [word for word, _ in rows] == ["one", "two", "three", "four", "<eos>", "five", "six", "<unk>", "<eos>"] * 70
    assert all(-math.inf < float(value) < 0 for _, value in rows)


def test_the_table_names_the_kind_of_number(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--method", "ensemble", "--samples", "4", "--eval-batch-size", "2", "--window", "7"]
    outputs = []
    for folder in (run, run, run / "deterministic"):
        assert main(["evaluate", str(folder), *options]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]  # one seed, one number
    shown = dict(line.split("  ", 1) for line in outputs[0].splitlines())
    assert shown["method"].strip() == "ensemble of 4 noisy runs"
    assert shown["kind"].strip().startswith("predictor: ")
    assert float(shown["perplexity"]) == pytest.approx(math.exp(float(shown["nats per step"])), rel=1e-3)
    assert float(shown["Monte Carlo error"].split()[0]) > 0 and float(shown["data error"].split()[0]) > 0
    assert "over blocks of 500 tokens" in shown["data error"] and "exact: the log-likelihood" in outputs[2]


def test_a_text_of_one_block_has_no_error(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "short.txt").write_text("one two three\n" * 20)
    assert main(["evaluate", str(run), "--text", str(tmp_path / "short.txt")]) == 0
    assert "unknown, as there is only one (standard error over blocks of 500 tokens)" in capsys.readouterr().out


def test_a_text_whose_columns_would_be_short_is_read_in_one(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def score(text: str, *options: str) -> str:
        (tmp_path / "text.txt").write_text(text)
        assert main(["evaluate", str(run), "--text", str(tmp_path / "text.txt"), *options]) == 0
        return capsys.readouterr().out

    sentence, windows = "one two three\n", "one two three\n" * 25  # ten columns of a window of ten steps
    one = score(sentence, "--eval-batch-size", "1")
    assert (
        score(sentence)
        == one.replace("text.txt", "text.txt, read in one column")
        != score(sentence, "--eval-batch-size", "4")
    )
    assert score(windows) == score(windows, "--eval-batch-size", "10") != score(windows, "--eval-batch-size", "1")
    assert main(["evaluate", str(run), "--text", str(tmp_path / "text.txt"), "--eval-batch-size", "101"]) == 2
    assert "--eval-batch-size must be at most 100" in capsys.readouterr().err


def test_a_text_that_is_gone_can_be_replaced(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, tmp_path / "copy")
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text().replace("test.txt", "gone.txt"))
    assert main(["evaluate", str(tmp_path / "copy")]) == 2
    assert "gone.txt cannot be read" in (line := capsys.readouterr().err)
    assert line.endswith("; --text FILE reads another file in place of the run's own\n")


@pytest.mark.parametrize("method", ["importance", "particle-filter"])
def test_likelihoods_come_with_their_diagnostics(
    run: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, tokens = tmp_path / "found.json", tmp_path / "tokens.csv"
    options = ["--method", method, "--samples", "40", "--json", str(file), "--per-token", str(tokens)]
    assert main(["evaluate", str(run), *options]) == 0
    shown = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    result = json.loads(file.read_text())
    assert 0 < result["effective_samples"] < 40 and result["monte_carlo_error"] > 0
    assert shown["effective samples"].strip() == f"{result['effective_samples']:.1f} of 40, on average"
    if method == "importance":
        assert shown["kind"].strip().startswith("bound: ")
        assert shown["Pareto k"].split()[0] == f"{result['pareto_k']:.2f}"
    else:
        bias = 0.5 * result["monte_carlo_error"] ** 2 * result["num_steps"]
        assert shown["Monte Carlo bias"].strip() == f"about {bias:.4f} nats per step too high"
        assert shown["kind"].strip().startswith("estimate: ")
        assert shown["resamplings"].split()[0] == f"{result['resamplings']:.1f}"
    rows = _read(tokens)[1:]
    assert -sum(float(value) for _, value in rows) / len(rows) == pytest.approx(result["nats_per_step"])
    assert main(["evaluate", str(run), "--method", method, "--samples", "40"]) == 0  # one seed, one number
    again = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert again["nats per step"].strip() == f"{result['nats_per_step']:.4f}"


@pytest.mark.parametrize("method", ["importance", "particle-filter"])
def test_both_are_exact_for_the_deterministic_music(
    music: Path, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "found.json"
    assert main(["evaluate", str(music), "--method", method, "--json", str(file)]) == 0
    assert "exact: the log-likelihood" in capsys.readouterr().out
    assert json.loads(file.read_text())["nats_per_step"] == pytest.approx(_result(music)["test"]["nats_per_step"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--samples 3", "--samples=3 has no effect on --method='mean'"),
        ("--method ensemble --samples 1", "at least 2"),
        ("--method importance --samples 0", "positive integer"),
        (
            "--method particle-filter --samples 6",
            "a multiple of 4, since 4 islands divide the particles equally, got 6",
        ),
        ("--method particles", "--method"),
        ("--window 0", "window must be at least 1"),
        ("--eval-batch-size 1000", "--eval-batch-size must be at most 630"),
        ("--data-root .", "root"),
        ("--split dev", "--split"),
        ("--seed -1", "seed must be from 0"),
        ("--seed 99999999999999999999", "seed must be from 0"),
        ("--per-token {run}/best.pt", "nothing is overwritten"),
        ("--json nowhere/found.json", "nowhere"),
        ("--json {run}/one --per-token {run}/one", "use different names"),
    ],
)
def test_options_that_cannot_apply_are_refused(
    run: Path, options: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), *options.format(run=run).split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line.lower()


def test_other_music_is_scored_from_the_folder_alone(music: Path, tmp_path: Path) -> None:
    shutil.copytree(music, tmp_path / "copy")
    file, new = tmp_path / "new.json", music.parent / "Chorales.mat"
    assert main(["evaluate", str(tmp_path / "copy"), "--data", str(new), "--split", "valid", "--json", str(file)]) == 0
    content = json.loads(file.read_text())
    assert content["nats_per_step"] == pytest.approx(_result(music)["valid"]["nats_per_step"])
    assert (content["split"], content["data"]) == ("valid", str(new))


def test_windows_are_refused_for_music(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(music), "--window", "5"]) == 2
    assert "--window 5 is for texts" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run), "--device", "cuda"]) == 2
    assert "cuda" in capsys.readouterr().err


def test_the_folder_s_configuration_finds_the_data(run: Path) -> None:
    config = from_json((run / "config.json").read_text())
    vocabulary = load_corpus(config.data).vocabulary
    assert vocabulary is not None and len(vocabulary) == 8
