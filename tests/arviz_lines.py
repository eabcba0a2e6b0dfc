"""Both lines of ArviZ on one posterior: ``nz.posterior`` saves its arrays, and any ArviZ, without torch, looks at them.

    python tests/arviz_lines.py save arrays.npz     # in the project's environment
    python tests/arviz_lines.py check arrays.npz    # there, and in one with ArviZ 1 and matplotlib

The second builds the posterior again by the one adapter file, runs summaries, pictures and model comparison, and checks
their numbers against NumPy's. The tests run it on the ArviZ that is installed.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

ADAPTER = Path(__file__).parents[1] / "noisin_pyro" / "inference" / "arviz.py"


def save(path: Path) -> None:
    """Two families' posteriors over γ and z, of sequences that the first one made."""
    import pyro.distributions as dist
    import torch
    from pyro import poutine

    import noisin_pyro as nz

    torch.manual_seed(0)
    saved: dict[str, Any] = {}
    for noise in ("gaussian", "laplace"):
        rnn = nz.NoisyRNN(1, 2, noise=noise, spread=nz.Spread(prior=dist.Uniform(0.2, 1.0)))
        model = nz.SequenceModel(rnn, "gaussian", 2).double()
        with torch.no_grad():
            for parameter, like in zip(model.parameters(), saved.get("model", model).parameters(), strict=True):
                parameter.copy_(like)
            inputs = torch.zeros(6, 2, 1).double()
            x = poutine.trace(model).get_trace(inputs).nodes["x"]["value"]
        saved.setdefault("model", model)
        data = saved.setdefault("data", nz.data.Sequences(inputs, x))
        result = nz.posterior(model, data, num_samples=400, num_proposals=40_000, seed=1, progress=False)
        for group in result.groups():
            for name, values in result[group].data_vars.items():
                saved[f"{noise}/{group}/{name}"] = values.values
                saved[f"dims/{noise}/{group}/{name}"] = json.dumps(values.dims)
        saved[f"attrs/{noise}"] = json.dumps(result.attrs)
    del saved["model"], saved["data"]
    saved["log_weights"] = torch.randn(3, 1000).double().numpy() * [[0.5], [1.0], [3.0]]
    saved["pareto_k"] = _adapter().pareto_k(saved["log_weights"])
    np.savez(path, **saved)


def check(path: Path) -> None:
    """Look at the saved posteriors as a user would, and compare with what NumPy says of the same arrays."""
    for announced in ("Passing a dict or None as alias_mapping", "The inplace keyword in DataFrame.sort_values"):
        warnings.filterwarnings("ignore", announced)  # calls of ArviZ 0.23 that matplotlib 3.13 and pandas 4 will end
    adapter = _adapter()
    arrays = np.load(path)
    posteriors = {noise: _built(adapter, arrays, noise) for noise in ("gaussian", "laplace")}
    for noise, data in posteriors.items():
        _pictures(adapter, data)
        gamma, z = arrays[f"{noise}/posterior/gamma_1"], arrays[f"{noise}/posterior/z_1"]
        summary = adapter.load().summary(data, **adapter.interval(0.9))
        assert len(summary) == 1 + z[0, 0].size, summary
        assert abs(float(summary["mean"]["gamma_1"]) - gamma.mean()) < 0.01, summary
        assert abs(float(summary["sd"]["z_1[5, 2, 1]"]) - z[..., 5, 1, 1].std()) < 0.01, summary
        assert any(str(column).endswith(("90_lb", "5%")) for column in summary.columns), summary
        assert data.posterior.time.values.tolist() == [1, 2]
        assert data.attrs["noise"] == f"{noise}:additive"
    _leave_one_out(adapter.load(), posteriors, arrays)
    np.testing.assert_allclose(adapter.pareto_k(arrays["log_weights"]), arrays["pareto_k"], atol=0.03)


def _built(adapter: Any, arrays: Any, noise: str) -> Any:
    groups: dict[str, Any] = {}
    for key in arrays.files:
        if key.startswith(f"{noise}/"):
            _, group, name = key.split("/", 2)
            groups.setdefault(group, {})[name] = (tuple(json.loads(str(arrays[f"dims/{key}"]))), arrays[key])
    return adapter.to_arviz(groups, {"time": np.arange(1, 3)}, json.loads(str(arrays[f"attrs/{noise}"])))


def _pictures(adapter: Any, data: Any) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    arviz = adapter.load()
    predictive_check = getattr(arviz, "plot_ppc_dist", None) or arviz.plot_ppc
    arviz.plot_forest(data, var_names=["gamma_1", "z_1"], **adapter.interval(0.9, plot=True))
    arviz.plot_trace(data, var_names=["gamma_1"])
    predictive_check(data)
    assert len(plt.get_fignums()) >= 3
    plt.close("all")


def _leave_one_out(arviz: Any, posteriors: dict[str, Any], arrays: Any) -> None:
    """Loo of whole sequences is near the plain importance estimate, -Σ_n log mean_s 1 / p(x_n | γ_s)."""
    scores = {noise: arviz.loo(data, var_name="x_marginal") for noise, data in posteriors.items()}
    for noise, loo in scores.items():
        log_p = arrays[f"{noise}/log_likelihood/x_marginal"].reshape(-1, 6)
        plain = -np.log(np.exp(-log_p).mean(0)).sum()
        elpd = float(loo.elpd if hasattr(loo, "elpd") else loo.elpd_loo)
        assert abs(elpd - plain) < 0.1, (elpd, plain)
        assert loo.n_data_points == 6
    table = arviz.compare(posteriors, var_name="x_marginal")
    assert set(table.index) == set(posteriors), table


def _adapter() -> Any:
    """By its path: the package itself needs torch."""
    specification = importlib.util.spec_from_file_location("arviz_adapter", ADAPTER)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    {"save": save, "check": check}[sys.argv[1]](Path(sys.argv[2]))
    print(f"{sys.argv[1]} {sys.argv[2]}: ArviZ {_adapter().load().__version__}, Python {sys.version.split()[0]}")
