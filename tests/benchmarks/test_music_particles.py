"""A trained model of the music table by number of particles: records that resume, and their table."""

import json
from pathlib import Path
from typing import Any

import pyro
import pytest
from matplotlib.image import imread

import noisin_pyro as nz


def test_each_number_is_evaluated_once_with_both_proposals(small: Any, music_particles: Any, tmp_path: Path) -> None:
    assert small("smoothing")
    folder, file = tmp_path / "jsb", str(next(tmp_path.glob("*.mat")))
    record = folder / "particles" / "smoothing-11.json"
    record.parent.mkdir()
    for particles in ((8,), (16, 8)):
        music_particles.measure(folder / "smoothing" / "seed-11", file, 11, particles, record)
    content = json.loads(record.read_text())
    done = [(each["proposal"], each["num_samples"]) for each in content["evaluations"]]
    assert done == [("prior", 8), ("guide", 8), ("prior", 16), ("guide", 16)]
    assert content["row"] == "smoothing" and content["seed"] == 11
    assert all(each["versions"] and each["commit"] for each in content["evaluations"])
    run = nz.load(folder / "smoothing" / "seed-11")
    again = []
    for guide in (None, run.guide):
        pyro.set_rng_seed(11)
        again.append(
            nz.evaluate(
                run.model, nz.data.load(file).test, "particle-filter", num_samples=16, batch_size=20, guide=guide
            )
        )
    for each, result in zip(content["evaluations"][2:], again, strict=True):
        assert each["nats_per_step"] == pytest.approx(result.nats_per_step, rel=1e-6)
    text = music_particles.write(folder, {"smoothing": "smoothing guide"})
    assert (folder / "particles.md").read_text() == text
    lines = text.splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == ["8", "16", "8", "16"]
    assert [line.split(";")[1].split(" ")[1] for line in lines] == ["prior", "prior", "guide", "guide"]
    nats = content["evaluations"][0]["nats_per_step"]
    assert f"{nats:.3f} ± " in lines[0] and f"| {again[1].monte_carlo_bias:.3f} |" in lines[3]
    assert min(imread(folder / "particles.png").shape[:2]) > 200
