"""Programs that mask the observed site themselves score as models with masked ``Sequences``."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro import LanguageModel, evaluate
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.models import Output

from .shared import LENGTHS, ROWS, STEPS, arrays, make, score, with_own_mask


class TestPrograms:
    """Masks that are not the data's: of ``poutine.mask``, and of the observed site in a program of one's own."""

    @pytest.mark.parametrize("method", ["mean", "ensemble", "importance"])
    def test_own_masks_equal_those_of_the_data(self, method):
        model, (x, y) = make(), arrays()
        expected = score(model, Sequences(x, y, LENGTHS, STEPS), method, log_probs=True)
        for options in ({}, {"masked_output": True}):
            result = score(with_own_mask(model, STEPS, **options), Sequences(x, y, LENGTHS), method, log_probs=True)
            assert result.nats_per_step == pytest.approx(expected.nats_per_step, abs=1e-12)
            assert result.num_steps == expected.num_steps
            torch.testing.assert_close(result.log_probs, expected.log_probs, rtol=0, atol=1e-12)
        result.difference(expected)  # the same targets

    def test_time_may_be_a_plate(self):
        model, (x, y) = make(spread=0.0), arrays()
        result = score(with_own_mask(model, STEPS, time_plate=True), Sequences(x, y, LENGTHS), "mean")
        assert result == score(model, Sequences(x, y, LENGTHS, STEPS), "mean")

    @pytest.mark.parametrize("method", ["mean", "ensemble", "importance"])
    def test_poutine_mask_equals_dropped_sequences(self, method):
        model, (x, y) = make("bernoulli"), arrays()
        y = (y > 0).double()
        result = score(poutine.mask(model, mask=ROWS), Sequences(x, y, LENGTHS), method, log_probs=True)
        expected = score(model, Sequences(x, y, LENGTHS), method, log_probs=True)  # the same noise
        torch.testing.assert_close(result.log_probs, expected.log_probs * ROWS[:, None])
        assert result.lengths.tolist() == [4, 0, 3]
        dropped = evaluate(model, Sequences(x[ROWS], y[ROWS], LENGTHS[ROWS]))
        if method == "mean":
            assert result.nats_per_step == pytest.approx(dropped.nats_per_step, abs=1e-12)
            assert result.standard_error == pytest.approx(dropped.standard_error, abs=1e-12)

    def test_the_guide_of_a_masked_sequence_is_in_no_sum(self):
        model, (x, y) = make(), arrays()
        guide = nz.guides.get("mean-field", model)
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.add_(0.2)
        view = nz.innovations(model)
        result = score(
            poutine.mask(view, mask=ROWS), Sequences(x, y), "importance", guide=lambda *a, **k: guide(*a, **k)
        )
        full = score(view, Sequences(x, y), "importance", guide=lambda *a, **k: guide(*a, **k))
        torch.testing.assert_close(result.totals, full.totals * ROWS)

    def test_tokens_of_a_text(self):
        model, tokens = LanguageModel(5, 3, spread=0.4).double(), torch.randint(5, (23,))
        data = Stream(tokens, batch_size=2, window=4)

        def program(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Any:
            return model(inputs, targets, state, lengths, mask=targets != 3)

        for method in ("mean", "ensemble", "importance"):
            result, full = (score(each, data, method, log_probs=True) for each in (program, model))
            assert result.num_steps == int((tokens != 3).sum())
            if method != "importance":  # the weights before a step are by the targets before it
                torch.testing.assert_close(result.log_probs, full.log_probs[tokens != 3])
            assert result.nats_per_step == pytest.approx(-result.log_probs.mean().item(), abs=1e-12)

    def test_the_particle_filter_refuses_masks_that_it_does_not_see(self):
        class Padded(LanguageModel):
            def forward(
                self, inputs: Any, targets: Any = None, state: Any = None, lengths: Any = None, *_: Any, **__: Any
            ):
                return super().forward(inputs, targets, state, lengths, mask=targets != 3)

        x, y = arrays()
        for program in (poutine.mask(make(), mask=ROWS), with_own_mask(make(), STEPS)):
            with pytest.raises(ValueError, match="method='particle-filter' needs a SequenceModel"):
                score(program, Sequences(x, y), "particle-filter")
        text = Stream(torch.tensor([0, 1, 2, 4, 0, 1, 3, 3]), batch_size=1, window=4)
        with pytest.raises(ValueError, match=r"step by step, without Padded\.forward; .*missing targets are given by"):
            score(Padded(5, 3).double(), text, "particle-filter")
        exact = score(Padded(5, 3, spread=0.0).double(), text, "particle-filter")
        assert (exact.kind, exact.num_steps) == ("exact", 6)

    def test_masks_that_give_no_count_are_refused(self):
        model, (x, y) = make(), arrays()
        data = Sequences(x, y)

        def program(observe: Any) -> Any:
            def run(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Output:
                with pyro.plate("sequences", len(inputs), dim=-1):
                    z, end = model.rnn(inputs, state, lengths)
                    observe(model.emission(z), targets)
                return Output(model.emission(z), end)

            return run

        def per_step(emission: Any, targets: Tensor) -> None:
            for t, law in enumerate(emission.base_dist.loc.unbind(-2)):
                site = dist.Normal(law, 1.0).to_event(1).mask(STEPS[:, t])
                pyro.sample(f"x_{t}", site, obs=targets[:, t])

        def per_feature(emission: Any, targets: Tensor) -> None:
            features = dist.Normal(emission.base_dist.loc, 1.0).mask(torch.tensor([True, False]))
            pyro.sample("x", features.to_event(2), obs=targets)

        def twice(emission: Any, targets: Tensor) -> None:
            pyro.sample("x", emission.mask(STEPS).to_event(1), obs=targets)
            pyro.sample("y", emission.to_event(1), obs=targets)

        def beside(emission: Any, targets: Tensor) -> None:
            pyro.sample("x", emission.to_event(1), obs=targets)
            pyro.factor("score", targets.sum((-1, -2)))

        def level(emission: Any, targets: Tensor) -> None:
            pyro.sample("level", dist.Normal(0.0, 1.0), obs=targets[:, 0, 0])
            pyro.sample("x", emission.to_event(1), obs=targets)

        for observe, message in (
            (per_step, r"observes no site of the targets' shape, \(3, 5, 2\), only 'x_0'"),
            (per_feature, "masks parts of single steps at 'x'"),
            (twice, "observes 'y' beside the targets at 'x', which some methods would score and others not"),
            (beside, "observes 'score' beside the targets at 'x'"),
            (level, "observes 'level' beside the targets at 'x'"),
        ):
            for method in ("mean", "ensemble", "importance"):
                with pytest.raises(ValueError, match=message):
                    score(program(observe), data, method)
        with pytest.raises(ValueError, match="data has missing targets, but model has no argument mask; add mask=None"):
            score(program(twice), Sequences(x, y, mask=STEPS), "mean")
        ignorant = program(lambda emission, targets: pyro.sample("x", emission.to_event(1), obs=targets))
        with pytest.raises(ValueError, match="scores steps at 'x' that are padding or missing"):
            score(ignorant, Sequences(x, y, LENGTHS), "mean")
        swallowing = lambda *args, mask=None, **options: ignorant(*args, **options)  # noqa: E731
        with pytest.raises(ValueError, match="scores steps at 'x' that are padding or missing"):
            score(swallowing, Sequences(x, y, mask=STEPS), "importance")
        with pytest.raises(ValueError, match="masks every step"):
            score(poutine.mask(model, mask=torch.zeros(3).bool()), data, "importance")

    @pytest.mark.parametrize("method", ["mean", "ensemble", "importance"])
    def test_another_emission_than_the_observed_one_is_refused(self, method):
        model, (x, y) = make(), arrays()

        def program(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Output:
            with pyro.plate("sequences", len(inputs), dim=-1):
                z, end = model.rnn(inputs, state, lengths)
                pyro.sample("x", model.emission(z).to_event(1), obs=targets)
            return Output(dist.Normal(model.emission(z).base_dist.loc, 2.0).to_event(1), end)

        with pytest.raises(
            ValueError, match=r"log-probability -.*, but at the observed site 'x' they have -.*; return"
        ):
            score(program, Sequences(x, y), method)

    @pytest.mark.parametrize("method", ["mean", "ensemble", "importance"])
    def test_sites_that_no_method_scores_are_ignored(self, method):
        """What is computed, and conditioned weights outside the plate of the sequences."""
        model, (x, y) = make(), arrays()

        def program(*args: Any, **options: Any) -> Any:
            pyro.sample("weight", dist.Normal(0.0, 1.0), obs=torch.tensor(0.3))
            out = model(*args, **options)
            with pyro.plate("rows", 3, dim=-1):
                pyro.deterministic("logits", out.emission.base_dist.loc, event_dim=2)
            return out

        results = [score(each, Sequences(x, y, LENGTHS), method) for each in (program, model)]
        assert results[0].nats_per_step == results[1].nats_per_step

    def test_conditioned_dropout_masks_are_refused_by_importance_alone(self):
        model, (x, y) = make(regularizer="variational-dropout", spread=0.0), arrays()
        trace: Any = poutine.trace(model).get_trace(x, y)
        masks = {name: site["value"] for name, site in trace.nodes.items() if name.endswith("mask")}
        conditioned = poutine.condition(model, masks)
        expected = poutine.condition(model, masks)(x, y).emission.log_prob(y).sum()
        result = score(conditioned, Sequences(x, y), "ensemble")
        assert result.kind == "exact" and result.nats_per_step == pytest.approx(-expected.item() / 15)
        with pytest.raises(ValueError, match=r"samples the noise, but 'z_1_.*mask' is conditioned on"):
            score(conditioned, Sequences(x, y), "importance")


def test_programs_without_a_site_of_all_targets_are_refused():
    """Sums and counts of a factor, of a part of the targets or of another variable are not those of the targets."""
    model, (inputs, targets) = make(), arrays()

    def factor(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Any:
        with poutine.block():
            out = model(inputs, targets, state, lengths)
        with pyro.plate("rows", len(inputs), dim=-1):
            pyro.factor("score", (out.emission.log_prob(targets) * STEPS).sum(-1))
        return out

    def part(inputs: Tensor, targets: Tensor, state: Any = None, lengths: Any = None) -> Any:
        with poutine.block():
            out = model(inputs, targets, state, lengths)
        with pyro.plate("rows", len(inputs), dim=-1):
            pyro.sample("first", dist.Normal(0.0, 1.0).expand([3, 3, 2]).to_event(2), obs=targets[:, :3])
        return out

    for program in (factor, part):
        for method in ("mean", "ensemble", "importance"):
            with pytest.raises(ValueError, match="observes no site of the targets' shape"):
                score(program, Sequences(inputs, targets), method)
