"""The policies by name, with their parameters checked."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, NamedTuple

from pydantic import ValidationError

from controller.parameter_types import Parameters
from controller.parameters import (
    AdaptiveParameters,
    LongTermParameters,
    ReactiveParameters,
    StaticParameters,
    StepwiseParameters,
)
from controller.policies.chiron import Chiron
from controller.policies.chiron_parameters import ChironParameters
from controller.policies.hpa import HorizontalAutoscaler
from controller.policies.hpa_parameters import HpaParameters
from controller.policies.lt_i import LongTermImmediate
from controller.policies.lt_u import LongTermByUtilisation
from controller.policies.lt_ua import LongTermAdaptive
from controller.policies.mpc import ModelPredictive
from controller.policies.mpc_parameters import MpcParameters
from controller.policies.oracle import TrueFuture, oracle
from controller.policies.reactive import Reactive
from controller.policies.siloed import Siloed
from controller.policies.static import Static
from controller.types import Policy, PolicyParameters


class _Entry(NamedTuple):
    parameters: type[Parameters]
    build: Callable[[Any], Policy]


_CATALOGUE: dict[str, _Entry] = {
    "static": _Entry(StaticParameters, lambda given: Static(parameters=given)),
    "reactive": _Entry(ReactiveParameters, lambda given: Reactive(parameters=given)),
    "hpa": _Entry(HpaParameters, lambda given: HorizontalAutoscaler(parameters=given)),
    "siloed": _Entry(ReactiveParameters, lambda given: Siloed(parameters=given)),
    "chiron": _Entry(ChironParameters, lambda given: Chiron(parameters=given)),
    "lt-i": _Entry(LongTermParameters, lambda given: LongTermImmediate(parameters=given)),
    "lt-u": _Entry(StepwiseParameters, lambda given: LongTermByUtilisation(parameters=given)),
    "lt-ua": _Entry(AdaptiveParameters, lambda given: LongTermAdaptive(parameters=given)),
    "mpc": _Entry(MpcParameters, lambda given: ModelPredictive(parameters=given)),
    "oracle": _Entry(MpcParameters, lambda given: oracle(given, None)),
}


def policy_names() -> tuple[str, ...]:
    """Every policy that `make_policy` can make."""
    return tuple(_CATALOGUE)


def make_policy(name: str, parameters: PolicyParameters, *, future: TrueFuture | None = None) -> Policy:
    """The named policy; parameters left out have the paper's values. `future` is told to `oracle` and to no other.

    Raises ValueError, in one line, for an unknown name or key (with the nearest known one) or a value out of bounds.
    """
    if name not in _CATALOGUE:
        raise ValueError(f"unknown policy {name!r}; {_did_you_mean(name, policy_names())}")
    entry = _CATALOGUE[name]
    try:
        policy = entry.build(entry.parameters.model_validate(dict(parameters)))
    except ValidationError as error:
        raise ValueError(f"policy {name}: {_in_words(error, entry.parameters)}") from None
    return replace(policy, foresight=future) if name == "oracle" and isinstance(policy, ModelPredictive) else policy


def _in_words(error: ValidationError, model: type[Parameters]) -> str:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return f"unknown parameter {'.'.join(path)!r}; {_did_you_mean(path[-1], _keys(model, path[:-1]))}"
    where = f"{'.'.join(path)}: " if path else ""
    message = first["msg"].removeprefix("Value error, ")
    given = f" (given {first['input']!r})" if first["type"] != "value_error" else ""
    return f"{where}{message}{given}"


def _keys(model: type[Parameters], path: Sequence[str]) -> tuple[str, ...]:
    for name in path:
        inner = model.model_fields[name].annotation
        if not (isinstance(inner, type) and issubclass(inner, Parameters)):
            return ()
        model = inner
    return tuple(model.model_fields)


def _did_you_mean(given: str, known: Sequence[str]) -> str:
    near = get_close_matches(given, known, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known)}"
