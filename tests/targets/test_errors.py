"""The tree of errors: one root, facts as attributes, and a way through pickle (worker processes)."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from snn_compile.targets import errors
from snn_compile.targets.errors import SnnCompileError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, SnnCompileError)]


def test_the_tree_is_the_one_drawn() -> None:
    lines = [line for line in (errors.__doc__ or "").splitlines() if line.startswith("    ")]
    drawn, path = {}, {}
    for line in lines:
        name, depth = line.split()[0], len(line) - len(line.lstrip())
        path[depth] = name
        drawn[name] = path.get(depth - 2, "Exception")
    assert drawn == {kind.__name__: kind.__base__.__name__ for kind in KINDS}
    assert len(KINDS) == 14


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickle_and_copy(kind: type[SnnCompileError]) -> None:
    error = kind("what, where; what to try", node="fc1", violations=["a", "b"], step=3)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert str(again) == str(error) == "what, where; what to try"
        assert again.facts == error.facts == {"node": "fc1", "violations": ["a", "b"], "step": 3}
        assert (again.node, again.step) == ("fc1", 3)


def test_an_unknown_fact_is_an_attribute_error_that_names_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"WrongInput has no fact 'chip'; it has \['name'\]"):
        _ = errors.WrongInput("text", name="n").chip
    assert not hasattr(errors.WrongInput("text"), "name")
