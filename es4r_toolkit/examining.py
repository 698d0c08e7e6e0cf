"""Where numbers first stop being finite: one pass forward and back, looked at module by module."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import get_total_norm


@dataclass(frozen=True)
class Group:
    """The trained weights of one part of the system.

    Attributes
    ----------
    size : int
        How many weights (tensors) it has.
    weights : list of str
        Those that are not finite themselves.
    gradients : list of str
        Those whose gradients are not finite.
    """

    size: int
    weights: list[str]
    gradients: list[str]


@dataclass(frozen=True)
class Findings:
    """What one pass over a batch gave.

    Attributes
    ----------
    terms : dict of str to float
        The terms of the loss, and ``loss`` itself.
    gradient_norm : float
        Of all gradients together; it overflows where their squares do.
    groups : dict of str to Group
        By part of the system, such as ``understanding.downsampler``.
    forward : str or None
        Where the first value that is not finite arose, by module.
    backward : str or None
        Where the first gradient that is not finite arose, where all values were finite.
    weight : str or None
        Whose gradient was the first not to be finite.
    """

    terms: dict[str, float]
    gradient_norm: float
    groups: dict[str, Group]
    forward: str | None = None
    backward: str | None = None
    weight: str | None = None

    @property
    def is_finite(self) -> bool:
        """Whether a step could be taken."""
        return all(map(math.isfinite, [*self.terms.values(), self.gradient_norm])) and not self.broken_weights

    @property
    def severity(self) -> int:
        """0 where everything is finite, 1 where gradients are not, 2 where values are not."""
        values_are = self.forward is None and all(map(math.isfinite, self.terms.values()))
        return 0 if self.is_finite else 1 if values_are else 2

    @property
    def broken_weights(self) -> list[str]:
        """Weights that are not finite themselves."""
        return [name for group in self.groups.values() for name in group.weights]

    @property
    def cause(self) -> str:
        """What is not finite, in one line."""
        if self.is_finite:
            return "everything is finite"
        if self.broken_weights:
            return (
                f"{len(self.broken_weights)} trained weights are not finite themselves, {self.broken_weights[0]} first"
            )
        if self.forward is not None:
            return f"{self.forward} is the first value that is not finite"
        broken = [name for name, value in self.terms.items() if not math.isfinite(value)]
        if broken:
            return f"{broken[0]} is {self.terms[broken[0]]}, and everything that modules gave is finite"
        if self.weight is not None:
            return f"{self.weight} has the first gradient that is not finite" + (
                f"; {self.backward}" if self.backward else ""
            )
        return "the norm of the gradients overflows"

    def as_dict(self) -> dict[str, Any]:
        """As plain values, ready for JSON."""
        return {
            "finite": self.is_finite,
            "cause": self.cause,
            "terms": {name: number(value) for name, value in self.terms.items()},
            "gradient_norm": number(self.gradient_norm),
            "forward": self.forward,
            "backward": self.backward,
            "weight": self.weight,
            "groups": {name: vars(group) for name, group in self.groups.items()},
        }


def examine(modules: Mapping[str, nn.Module], terms: Callable[[], Mapping[str, Tensor]]) -> Findings:
    """Compute a loss and its gradients, and look at everything on the way.

    The weights' gradients are cleared first, and hold those of this loss afterwards.

    Arguments
    ---------
    modules : mapping of str to nn.Module
        Which to look at; a name and a dot stand before those of its parts, nothing where it is empty.
    terms : callable
        Computes the terms of the loss with them, ``loss`` the one that is learned from.

    Example
    -------
    >>> import torch
    >>> layer = nn.Sequential(nn.Linear(1, 1), nn.Softplus())
    >>> _ = layer[0].weight.data.fill_(float("inf"))
    >>> found = examine({"": layer}, lambda: {"loss": layer(torch.ones(1, 1)).sum()})
    >>> found.is_finite, found.forward, found.broken_weights
    (False, 'the output of 0 (Linear)', ['0.weight'])
    """
    named = {name: weight for name, weight in _named_weights(modules) if weight.requires_grad}
    for weight in named.values():
        weight.grad = None
    watch = _Watch()
    handles = [handle for name, part in _named_parts(modules) for handle in watch.over(name, part)]
    handles += [weight.register_hook(partial(watch.weight_gradient, name)) for name, weight in named.items()]
    try:
        found = terms()
        watch.is_forward = False
        if found["loss"].requires_grad:
            found["loss"].backward()
    finally:
        for handle in handles:
            handle.remove()
    gradients = [weight.grad for weight in named.values() if weight.grad is not None]
    return Findings(
        {name: float(term.detach()) for name, term in found.items()},
        float(get_total_norm(gradients)),
        _groups(named),
        watch.forward,
        watch.backward if watch.forward is None else None,
        watch.weight,
    )


def number(value: float) -> float | str:
    """A number for JSON, which has no infinity and no NaN: those as words."""
    return value if math.isfinite(value) else str(value)


def broken_weights(weights: Mapping[str, Tensor]) -> list[str]:
    """The names of those that are not finite; one look at them all where none is."""
    # The largest of them, which no square makes overflow.
    if not weights or bool(get_total_norm(list(weights.values()), norm_type=math.inf).isfinite()):
        return []
    return [name for name, weight in weights.items() if not bool(weight.isfinite().all())]


class _Watch:
    """What hooks have seen first."""

    def __init__(self) -> None:
        self.is_forward = True
        self.forward: str | None = None
        self.backward: str | None = None
        self.weight: str | None = None
        self._last_finite: str | None = None

    def over(self, name: str, part: nn.Module) -> list[Any]:
        """Hook a module."""
        label = f"{name} ({type(part).__name__})"
        return [
            part.register_forward_pre_hook(partial(self._inputs, label), with_kwargs=True),
            part.register_forward_hook(partial(self._outputs, label)),
        ]

    def weight_gradient(self, name: str, gradient: Tensor) -> None:
        if self.weight is None and not bool(gradient.isfinite().all()):
            self.weight = name

    def _inputs(self, label: str, _: nn.Module, inputs: tuple, named: dict[str, Any]) -> None:
        # Masks that are added to scores are minus infinity where they hide something.
        if self._looks and any(_is_broken(value, masks=True) for value in _tensors([inputs, named])):
            self.forward = f"the input of {label}"

    def _outputs(self, label: str, _: nn.Module, inputs: tuple, outputs: Any) -> None:
        if not self.is_forward:
            return
        for value in _tensors(outputs):
            if self._looks and _is_broken(value):
                self.forward = f"the output of {label}"
            if value.requires_grad:
                value.register_hook(partial(self._gradient, label))

    def _gradient(self, label: str, gradient: Tensor) -> None:
        if self.backward is not None:
            return
        if bool(gradient.isfinite().all()):
            self._last_finite = label
        else:
            after = f", that at the output of {self._last_finite} is still" if self._last_finite else ""
            self.backward = f"the gradient at the output of {label} is not finite{after}"

    @property
    def _looks(self) -> bool:
        # Layers that are computed again in the backward pass say nothing new.
        return self.is_forward and self.forward is None


def _is_broken(value: Tensor, masks: bool = False) -> bool:
    broken = value.isnan() | (value == math.inf) if masks else ~value.isfinite()
    return value.is_floating_point() and bool(broken.any())


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in what a module takes or gives."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors(entry)
    elif is_dataclass(value):
        yield from _tensors([getattr(value, one.name) for one in fields(value)])


def _named_parts(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    for name, module in modules.items():
        for inner, part in module.named_modules():
            # The whole of it says no more than its parts, unless it has none.
            if inner or not any(part.children()):
                yield ".".join(filter(None, (name, inner))), part


def _named_weights(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Parameter]]:
    for name, module in modules.items():
        yield from module.named_parameters(prefix=name)


def _groups(named: Mapping[str, nn.Parameter]) -> dict[str, Group]:
    found: dict[str, Group] = {}
    for name, weight in named.items():
        part = ".".join(name.split(".")[:2])
        group = found.get(part, Group(0, [], []))
        broken = weight.grad is not None and not bool(weight.grad.isfinite().all())
        found[part] = Group(
            group.size + 1,
            group.weights + [name] * (not bool(weight.detach().isfinite().all())),
            group.gradients + [name] * broken,
        )
    return found
