"""The time from a table to a forecast: what is timed is what the page shows, and the page has the measured times."""

import json
import re
from typing import Any


def test_the_page_s_commands_are_timed(first_forecast: Any) -> None:
    tables, commands = first_forecast.steps(first_forecast.PAGE.read_text(encoding="utf-8"))
    train, forecast, both = commands.values()
    assert train[1:5] == ["-m", "noisin_pyro", "train", "--data"] and forecast[3] == "forecast" and "--png" in forecast
    assert train[5] in tables and forecast[forecast.index("--future") + 1] in tables
    code = [line for line in both[-1].splitlines() if line.strip()]
    assert len(code) <= 15 and "nz.plots.forecasts(" in both[-1]
    for program in (tables, both[-1]):
        compile(program, "page", "exec")


def test_the_page_has_the_measured_times(first_forecast: Any) -> None:
    seconds = json.loads(first_forecast.RESULT.read_text(encoding="utf-8"))["seconds"]
    shown = re.findall(r"\((\d+) s\)", first_forecast.PAGE.read_text(encoding="utf-8"))
    assert shown == [f"{seconds[name]:.0f}" for name in ("noisin train", "noisin forecast", "in Python")]
