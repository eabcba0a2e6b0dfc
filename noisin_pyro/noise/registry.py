"""Noise by name: the table of families, and the names that users add to it."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from noisin_pyro._lookup import known
from noisin_pyro.noise import laws
from noisin_pyro.noise.families import Family, Gaussian, NativeBeta, NativePoisson, Standard

Maker = Callable[..., Family]


@dataclass(frozen=True)
class Entry:
    """One row of the table of families.

    Attributes:
        name, form: what ``get`` is asked for.
        law: the law that is standardised to make ε (or, for natives without innovations, the law of z), in words.
        options: the law's shape options and their defaults.
        make: a function of these options that returns the family.
    """

    name: str
    form: str
    law: str
    options: dict[str, Any]
    make: Maker


def families() -> list[str]:
    """Names of all families, sorted."""
    return sorted(_TABLE)


def describe(name: str | None = None) -> list[Entry]:
    """The rows of the table, one for each name and form; of one name if given. An unknown name is a ValueError."""
    names = families() if name is None else [known("noise", name, families())]
    return [entry for each in names for entry in _TABLE[each].values()]


def get(name: str | Family, form: str | None = None, **shape: float) -> Family:
    """A family of noise by name.

    Args:
        name: one of ``families()``, with its form after a colon if you like ("gamma:multiplicative"); or a Family,
            which is returned as it is.
        form: "additive" (default), "multiplicative" or "native".
        **shape: options of the law, as ``describe(name)`` lists them: gamma ``concentration`` (2), chi2 ``degrees``
            (3), beta ``concentration`` (2), poisson ``rate`` (4), dirichlet ``concentration`` (1). Forms whose law
            follows from the spread have none.

    Raises:
        ValueError: an unknown name, form or option, or a value that the law does not admit.
    """
    if isinstance(name, Family):
        if form is not None or shape:
            given = ", ".join([*(["form"] if form is not None else []), *shape])
            raise ValueError(f"{given}: not for {name!r}, which is made already; give its name, or drop the options")
        return name
    if not isinstance(name, str):
        raise ValueError(f"noise must be the name of a family or a Family, got {name!r}")
    name, colon, suffix = name.partition(":")
    if colon and form is not None and form != suffix:
        raise ValueError(f'form: "{name}:{suffix}" and form="{form}" contradict each other; give one of them')
    forms = _TABLE[known("noise", name, families())]
    form = suffix if colon else form or next(iter(forms))
    if form not in forms:
        raise ValueError(f'form: {name} noise has no form "{form}"; it has {_listed(forms)}')
    entry = forms[form]
    for option in shape:
        if option not in entry.options:
            has = f"it has {_listed(entry.options)}" if entry.options else "it has none"
            raise ValueError(f'{option}: {name} noise in its {form} form has no option "{option}"; {has}')
    return entry.make(**shape)


def register(name: str, law: Callable[..., Any] | type[Family], *, replace: bool = False) -> None:
    """Add a family of your own, after which ``get(name)`` and every ``noise=name`` know it.

    The short way is a law: any torch or Pyro distribution with a finite mean and variance, written as a function of a
    tensor of zeros that carries shape, dtype and device. It is standardised for you, and comes in the additive and the
    multiplicative form; its keyword arguments are its shape options::

        register("uniform", lambda zeros: dist.Uniform(zeros, 1.0))
        register("student", lambda zeros, degrees=5.0: dist.StudentT(zeros + degrees))
        get("student:multiplicative", degrees=8.0)

    ``zeros`` has shape ``(size,)``: return a law with batch shape ``(size,)``, or a joint law with event shape
    ``(size,)``. A discrete law must live on the integers, or be one-hot.

    The long way is a subclass of ``Family`` that sets ``form`` and defines one method, ``law`` (and ``__init__`` if it
    has options)::

        class Mine(Family):
            name = "mine"
            def law(self, spread, size):
                return Standardized(dist.Uniform(spread.new_zeros(size), 1.0))

        register("mine", Mine)

    ``check(name)`` then tests the three desiderata.

    Args:
        name: new, without a colon.
        law: the function or the subclass.
        replace: whether to take the place of a family of that name.

    Raises:
        ValueError: the name is taken or malformed, or the law cannot be standardised.
    """
    if not isinstance(name, str) or not name or ":" in name:
        raise ValueError(f"name: expected a non-empty string without a colon, got {name!r}")
    if name in _TABLE and not replace:
        raise ValueError(f'name: "{name}" is a family already; choose another name, or pass replace=True')
    if isinstance(law, type) and issubclass(law, Family):
        entries = [Entry(name, law.form, (law.__doc__ or "").split("\n")[0], _options(law), law)]
    elif callable(law):
        entries = [_standard(name, law, form) for form in ("additive", "multiplicative")]
    else:
        raise ValueError(f"law: expected a function of a tensor of zeros, or a subclass of Family, got {law!r}")
    for entry in entries:
        entry.make()
    _TABLE[name] = {entry.form: entry for entry in entries}


def from_published(name: str, value: float) -> float:
    """Convert a γ of the published paper (Dieng et al., ICML 2018) into this library's spread, a standard deviation.

    The paper's γ is the standard deviation for gaussian, logistic, laplace, gamma and gumbel, the variance for beta and
    chi2, and the keep probability for bernoulli. It has no other family.

    Raises:
        ValueError: a family that the paper does not have, or a value outside its range.
    """
    if name not in _PUBLISHED:
        raise ValueError(f"name: the published paper has no γ for {name!r}; it has {_listed(_PUBLISHED)}")
    if not 0 < value < (1 if name == "bernoulli" else math.inf):
        expected = "a keep probability between 0 and 1" if name == "bernoulli" else "a positive number"
        raise ValueError(f"value: expected {expected} for {name}, got {value!r}")
    return _PUBLISHED[name](value)


_PUBLISHED: dict[str, Callable[[float], float]] = {
    **dict.fromkeys(["gaussian", "logistic", "laplace", "gamma", "gumbel"], float),
    **dict.fromkeys(["beta", "chi2"], math.sqrt),
    "bernoulli": lambda keep: math.sqrt((1 - keep) / keep),
}


def _options(function: Callable[..., Any]) -> dict[str, Any]:
    """Keyword options of a law or a Family subclass, with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _standard(name: str, law: Callable[..., Any], form: str, **how: Any) -> Entry:
    make = partial(Standard, name, law, form, **how)
    return Entry(name, form, (law.__doc__ or "").split("\n")[0], _options(law), make)


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))


def _builtin() -> list[Entry]:
    base = {
        "laplace": laws.laplace,
        "logistic": laws.logistic,
        "gumbel": laws.gumbel,
        "gamma": laws.gamma,
        "exponential": laws.exponential,
        "chi2": laws.chi2,
        "beta": laws.beta,
        "bernoulli": laws.bernoulli,
        "poisson": laws.poisson,
        "categorical": laws.categorical,
        "dirichlet": laws.dirichlet,
    }
    ratio = {"gamma": laws.gamma_ratio, "bernoulli": laws.bernoulli_ratio, "poisson": laws.poisson_ratio}
    entries = []
    for form in ("additive", "multiplicative"):
        entries.append(Entry("gaussian", form, "Normal(0, 1)", {}, partial(Gaussian, form)))
        for name, law in base.items():
            if form == "multiplicative" and name in ratio:
                entries.append(_standard(name, ratio[name], form, of_spread=True))
            else:
                entries.append(_standard(name, law, form))
    native = _standard("gamma", laws.gamma_ratio, "native", of_spread=True, mean_range=(0.0, math.inf))
    entries.append(dataclasses.replace(native, law="Gamma(1/γ², rate 1/(γ²h))"))
    entries.append(Entry("beta", "native", "Beta with mean h and variance γ²h(1 − h)", {}, NativeBeta))
    entries.append(Entry("poisson", "native", "γ²·Poisson(h/γ²)", {}, NativePoisson))
    return entries


_TABLE: dict[str, dict[str, Entry]] = {}
for _entry in _builtin():
    _TABLE.setdefault(_entry.name, {})[_entry.form] = _entry
