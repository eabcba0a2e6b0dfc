"""Noise by name: the registry of families."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from noisin_pyro._lookup import known
from noisin_pyro.noise import base_laws
from noisin_pyro.noise.family import Family, Gaussian, NativeBeta, NativePoisson, StandardizedFamily


@dataclass(frozen=True)
class FamilyInfo:
    """Description of a family in one of its forms.

    Attributes:
        name, form: arguments of ``get``.
        law: the law that is standardized to give ε, in words; for native forms without innovations, the law of z.
        options: shape options of the law and their defaults.
        make: constructor of the family, with these options as keyword arguments.
    """

    name: str
    form: str
    law: str
    options: dict[str, Any]
    make: Callable[..., Family]


def families() -> list[str]:
    """Names of all families, sorted."""
    return sorted(_REGISTRY)


def describe(name: str | None = None) -> list[FamilyInfo]:
    """Descriptions of all families, one for each name and form.

    Args:
        name: describe this family only.

    Raises:
        ValueError: an unknown name.
    """
    names = families() if name is None else [known("noise", name, families())]
    return [info for each in names for info in _REGISTRY[each].values()]


def get(name: str | Family, form: str | None = None, **shape: float) -> Family:
    """A family of noise by name.

    Args:
        name: one of ``families()``, optionally with a form after a colon ("gamma:multiplicative"); or a Family, which
            is returned unchanged.
        form: "additive" (default), "multiplicative" or "native".
        **shape: shape options of the law, as listed by ``describe(name)``: gamma ``concentration`` (2), chi2
            ``degrees`` (3), beta ``concentration`` (2), poisson ``rate`` (4), dirichlet ``concentration`` (1). Forms
            whose law is determined by the spread have none.

    Raises:
        ValueError: an unknown name, form or option, or a value outside an option's range.
    """
    if isinstance(name, Family):
        if form is not None or shape:
            given = ", ".join([*(["form"] if form is not None else []), *shape])
            raise ValueError(
                f"{given}: not allowed with {name!r}, a family already built; pass its name, or drop the options"
            )
        return name
    if not isinstance(name, str):
        raise ValueError(f"noise must be the name of a family or a Family, got {name!r}")
    name, colon, suffix = name.partition(":")
    if colon and form is not None and form != suffix:
        raise ValueError(f'form: "{name}:{suffix}" and form="{form}" contradict each other; pass one of them')
    forms = _REGISTRY[known("noise", name, families())]
    form = suffix if colon else form or next(iter(forms))
    if form not in forms:
        raise ValueError(f'form: {name} noise has no form "{form}"; it has {_listed(forms)}')
    info = forms[form]
    for option in shape:
        if option not in info.options:
            has = f"it has {_listed(info.options)}" if info.options else "it has none"
            raise ValueError(f'{option}: {name} noise in its {form} form has no option "{option}"; {has}')
    return info.make(**shape)


def register(name: str, law: Callable[..., Any] | type[Family], *, replace: bool = False) -> Family:
    """Register a family, so that ``get(name)`` and ``noise=name`` find it.

    The simplest way is to pass a law: a function that returns a torch or Pyro distribution with finite mean and
    variance. Its argument is a tensor of zeros, which gives shape, dtype and device; its keyword arguments become shape
    options. The law is standardized and registered in the additive and the multiplicative form::

        register("uniform", lambda zeros: dist.Uniform(zeros, 1.0))
        register("student", lambda zeros, degrees=5.0: dist.StudentT(zeros + degrees))
        get("student:multiplicative", degrees=8.0)

    ``zeros`` has shape ``(size,)``. The function returns a law with batch shape ``(size,)``, or a joint law with event
    shape ``(size,)``. A discrete law must have its support on the integers, or be one-hot.

    For full control, pass a subclass of :class:`Family` that sets ``form`` and defines ``law`` (and ``__init__`` if it
    has options)::

        class MyUniform(Family):
            name = "my-uniform"
            def law(self, spread, size):
                return Standardized(dist.Uniform(spread.new_zeros(size), 1.0))

        register("my-uniform", MyUniform)

    Test the three desiderata of a new family with ``check(name)``. For ``noisin train --noise my_noises:family``, a
    module ``my_noises.py`` has the line ``family = register("uniform", ...)``.

    Args:
        name: a new name, without a colon.
        law: the function or the subclass.
        replace: whether to replace a family registered under this name.

    Returns:
        The family, ``get(name)``: of a law in the additive form, with the defaults of its options.

    Raises:
        ValueError: the name is taken or malformed, or the law cannot be standardized.
    """
    if not isinstance(name, str) or not name or ":" in name:
        raise ValueError(f"name: expected a non-empty string without a colon, got {name!r}")
    if name in _REGISTRY and not replace:
        raise ValueError(f'name: "{name}" is already registered; choose another name, or pass replace=True')
    if isinstance(law, type) and issubclass(law, Family):
        infos = [FamilyInfo(name, law.form, _summary(law), _options(law), law)]
    elif callable(law):
        infos = [_standardized(name, law, form) for form in ("additive", "multiplicative")]
    else:
        raise ValueError(f"law: expected a function of a tensor of zeros, or a subclass of Family, got {law!r}")
    made = [info.make() for info in infos]  # raises if the law cannot be standardized
    _REGISTRY[name] = {info.form: info for info in infos}
    return made[0]


def from_published(name: str, value: float) -> float:
    """Convert a γ of the published paper (Dieng et al., ICML 2018) into this library's spread, a standard deviation.

    In that paper γ is the standard deviation for gaussian, logistic, laplace, gamma and gumbel, the variance for beta
    and chi2, and the keep probability for bernoulli. It has no other families.

    Raises:
        ValueError: a family that is not in that paper, or a value outside its range.
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


def _summary(law: Callable[..., Any]) -> str:
    return (law.__doc__ or "").split("\n")[0]


def _standardized(name: str, law: Callable[..., Any], form: str, **arguments: Any) -> FamilyInfo:
    return FamilyInfo(
        name, form, _summary(law), _options(law), partial(StandardizedFamily, name, law, form, **arguments)
    )


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))


def _builtin() -> list[FamilyInfo]:
    names = [
        "laplace",
        "logistic",
        "gumbel",
        "gamma",
        "exponential",
        "chi2",
        "beta",
        "bernoulli",
        "poisson",
        "categorical",
        "dirichlet",
    ]
    ratios = {
        "gamma": base_laws.gamma_ratio,
        "bernoulli": base_laws.bernoulli_ratio,
        "poisson": base_laws.poisson_ratio,
    }
    infos = []
    for form in ("additive", "multiplicative"):
        infos.append(FamilyInfo("gaussian", form, "Normal(0, 1)", {}, partial(Gaussian, form)))
        for name in names:
            if form == "multiplicative" and name in ratios:
                infos.append(_standardized(name, ratios[name], form, depends_on_spread=True))
            else:
                infos.append(_standardized(name, getattr(base_laws, name), form))
    native = _standardized("gamma", base_laws.gamma_ratio, "native", depends_on_spread=True, mean_range=(0.0, math.inf))
    infos.append(dataclasses.replace(native, law="Gamma(1/γ², rate 1/(γ²h))"))
    infos.append(FamilyInfo("beta", "native", "Beta with mean h and variance γ²h(1 − h)", {}, NativeBeta))
    infos.append(FamilyInfo("poisson", "native", "γ²·Poisson(h/γ²)", {}, NativePoisson))
    return infos


_REGISTRY: dict[str, dict[str, FamilyInfo]] = {}
for _info in _builtin():
    _REGISTRY.setdefault(_info.name, {})[_info.form] = _info
