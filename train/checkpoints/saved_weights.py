"""State dicts as training scripts save them, matched to the keys of a network.

A file may hold the state dict itself or under a key, beside counters and optimizers. Wrappers put prefixes
before its keys: DataParallel `module.`, torch.compile `_orig_mod.`, Lightning the attribute's name, averaging
`module.` or `ema_model.`. What matches is decided by the network's own keys and shapes: a prefix is stripped
if every key of the network is then there, and two sets of weights that both match and differ are refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import ExportError

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts of keys that torch's wrappers insert anywhere and no class of a user's has."""
_LATE = ("graded_spikes_factor", "reset_mechanism_val")
"""Buffers of snnTorch's neurons that its versions before 0.8 did not have."""
_STATES = ("mem", "syn", "spk", "reset", "syn_exc", "syn_inh", "a", "b")
"""States that snnTorch's versions before 0.9 saved as buffers of a neuron."""
_DEPTH = 4
_SHOWN = 2
_FITS_MAX = 32


@dataclass(frozen=True, eq=False)
class _Expected:
    """Keys of a network: those of its state dict, its parameters', and its snnTorch neurons' names."""

    own: Mapping[str, Tensor]
    parameters: frozenset[str]
    neurons: frozenset[str]

    def may_lack(self, key: str, parameters_only: bool) -> bool:
        """Whether the factory's value may stand for a buffer that is not saved."""
        owner, _, name = key.rpartition(".")
        if name == "num_batches_tracked":
            return True
        constant = owner in self.neurons and key not in self.parameters
        return constant and (parameters_only or name in _LATE)

    def is_state(self, key: str) -> bool:
        """Whether a key that the network has not is a membrane or another state of one of its neurons."""
        owner, _, name = key.rpartition(".")
        return owner in self.neurons and name in _STATES


@dataclass(eq=False)
class _Match:
    """A set of saved tensors under the network's keys, and where it does not fit."""

    place: str
    prefix: str
    state: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)

    @property
    def covers(self) -> bool:
        return not self.missing and not self.differing

    def named(self) -> str:
        """Return where in the file the tensors stand."""
        inside = f" in {self.place!r}" if self.place else ""
        return f"{self.prefix!r}{inside}" if self.prefix or not self.place else repr(self.place)


def match_weights(
    body: Mapping[Any, Any], module: nn.Module, path: Path, name: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors of a file under the keys of `module`, and notes on what was changed for that.

    `body` is the file's content, `path` and `name` (the factory's) are for errors. Raises ExportError that
    names missing and unexpected keys and differing shapes, or the places that both fit.
    """
    expected = _expected(module)
    groups = list(_groups(body))
    if not groups:
        raise _no_state_dict(path, _odd_entry(body))
    matches = [match for place, group in groups for match in _matches(place, _tensors(group), expected)]
    covering = [match for match in matches if match.covers]
    if len(covering) > 1 and any(not _equal(covering[0].state, other.state) for other in covering[1:]):
        raise ExportError(
            f"{path}: {len(covering)} different sets of weights in it fit the network of {name}: "
            f"{' and '.join(match.named() for match in covering[:3])}; save one of them alone",
            path=str(path),
        )
    best = min(covering or matches, key=lambda match: len(match.missing + match.differing + match.unexpected))
    if odd := _odd_entry(dict(groups)[best.place], best.covers):
        raise _no_state_dict(path, odd)
    if not best.covers or best.unexpected:
        raise _misfit(best, path, name)
    return best.state, best.notes


def _expected(module: nn.Module) -> _Expected:
    neurons = {
        key
        for key, part in module.named_modules()
        if any(base.__module__.startswith("snntorch.") for base in type(part).__mro__)
    }
    parameters = frozenset(key for key, _ in module.named_parameters(remove_duplicate=False))
    return _Expected(module.state_dict(), parameters, frozenset(neurons))


def _groups(body: Mapping[Any, Any], place: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the dictionaries of a file that hold tensors, each with the keys that lead to it."""
    if "schema" in body and isinstance(body.get("state_dict"), Mapping):  # a checkpoint of this package
        body = body["state_dict"]
    if _tensors(body):
        yield place, body
    if depth < _DEPTH:
        for key, value in body.items():
            if isinstance(value, Mapping):
                yield from _groups(value, f"{place}.{key}" if place else str(key), depth + 1)


def _tensors(group: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(key): value for key, value in group.items() if isinstance(value, Tensor)}


def _odd_entry(group: Mapping[Any, Any], whole: bool = True) -> str:
    """Return what in a dictionary is no tensor, "" for none or if it is not `whole`ly a state dict."""
    if not group:
        return "it is empty"
    odd = [(key, value) for key, value in group.items() if not isinstance(value, Tensor)]
    return f"{odd[0][0]!r} is a {type(odd[0][1]).__name__}" if odd and whole else ""


def _no_state_dict(path: Path, reason: str) -> ExportError:
    return ExportError(
        f"{path}: not a state dict ({reason}); save one with torch.save(net.state_dict(), path)",
        path=str(path),
    )


def _matches(place: str, saved: Mapping[str, Tensor], expected: _Expected) -> list[_Match]:
    """Return the matches of a group that cover the network, or else the nearest one.

    Keys are taken as they are first, then without the parts that wrappers insert in the middle.
    """
    took = [f"took {place!r}"] * bool(place)
    found, nearest = _covering(place, saved, expected, took)
    if found or not any(part in key for key in saved for part in _WRAPPERS):
        return found or [nearest]
    unwrapped = {_unwrapped(key): value for key, value in saved.items()}
    if len(unwrapped) < len(saved):
        return [nearest]
    parts = [repr(part) for part in _WRAPPERS if any(part in key for key in saved)]
    found, nearest = _covering(place, unwrapped, expected, [*took, f"stripped {', '.join(parts)}"])
    return found or [nearest]


def _covering(
    place: str, tensors: Mapping[str, Tensor], expected: _Expected, notes: Sequence[str]
) -> tuple[list[_Match], _Match]:
    """Return the matches by some prefix that cover the network, and the nearest of the others."""
    nearest = _Match(place, "", {}, missing=sorted(expected.own), unexpected=sorted(tensors))
    for added in _ancestors(list(expected.own)):
        names = {key.removeprefix(added): key for key in expected.own}
        found: list[_Match] = []
        votes = _votes(tensors, names)
        for prefix, _ in sorted(votes.most_common(_FITS_MAX), key=lambda vote: (-vote[1], len(vote[0]))):
            match = _match(place, prefix, added, tensors, names, expected)
            match.notes = [*notes, *match.notes]
            if match.covers:
                found.append(match)
            elif len(match.missing + match.differing) < len(nearest.missing + nearest.differing):
                nearest = match
        if found:
            return found, nearest
    return [], nearest


def _unwrapped(key: str) -> str:
    for part in _WRAPPERS:
        key = key.replace(part, "")
    return key


def _ancestors(keys: Sequence[str]) -> list[str]:
    """Return the prefixes that all keys share, the empty one first."""
    parts = [key.split(".")[:-1] for key in keys]
    shared: list[str] = [""]
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(f"{shared[-1]}{names[0]}.")
    return shared


def _votes(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> Counter[str]:
    """Count, for each prefix, the saved keys that become keys of the network without it."""
    votes: Counter[str] = Counter()
    for saved in tensors:
        key = saved.removesuffix("_orig") if saved.removesuffix("_orig") + "_mask" in tensors else saved
        start = 0
        while True:
            if key[start:] in names:
                votes[key[:start]] += 1
            dot = key.find(".", start)
            if dot < 0:
                break
            start = dot + 1
    return votes


def _match(
    place: str,
    prefix: str,
    added: str,
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    expected: _Expected,
) -> _Match:
    """Strip `prefix` from the saved keys, put `added` before them, and compare with the network."""
    inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    match = _Match(place, prefix, {})
    if prefix or added:
        change = [f"stripped {prefix!r}"] * bool(prefix) + [f"put {added!r} before the keys"] * bool(added)
        match.notes.append(" and ".join(change))
    if outside := [key for key in tensors if not key.startswith(prefix)]:
        match.notes.append(f"ignored {_listed(outside)} outside {prefix!r}")
    pruned = [key.removesuffix("_orig") for key in inside if _is_pruned(key, inside, names)]
    for key in pruned:
        inside[key] = inside.pop(f"{key}_orig") * inside.pop(f"{key}_mask")
    if pruned:
        match.notes.append(f"applied the pruning masks of {_listed(pruned)}")
    states = [key for key in inside if key not in names and expected.is_state(added + key)]
    if states:
        match.notes.append(f"ignored the saved states {_listed(states)}")
    match.unexpected = sorted(key for key in inside if key not in names and key not in states)
    match.state = {names[key]: value for key, value in inside.items() if key in names}
    _fill_buffers(match, expected)
    _fit_tensors(match, expected)
    return match


def _is_pruned(key: str, inside: Mapping[str, Tensor], names: Mapping[str, str]) -> bool:
    plain = key.removesuffix("_orig")
    mask = inside.get(f"{plain}_mask")
    return (
        key != plain
        and plain in names
        and plain not in inside
        and mask is not None
        and mask.shape == inside[key].shape
    )


def _fill_buffers(match: _Match, expected: _Expected) -> None:
    """Take the factory's value for buffers that the file may lack; list the others as missing."""
    absent = expected.own.keys() - match.state.keys()
    parameters_only = bool(match.state) and match.state.keys() == expected.parameters
    kept = sorted(key for key in absent if expected.may_lack(key, parameters_only))
    match.missing = sorted(absent - set(kept))
    match.state |= {key: expected.own[key] for key in kept}
    if kept:
        match.notes.append(f"kept the factory's {_listed(kept)}")


def _fit_tensors(match: _Match, expected: _Expected) -> None:
    """Convert types, and list the tensors that differ in shape or kind."""
    converted: Counter[tuple[str, str]] = Counter()
    for key, value in match.state.items():
        own = expected.own[key]
        if value.shape != own.shape and not value.numel() == own.numel() == 1:
            match.differing.append(f"{key} is {tuple(value.shape)} and the network's {tuple(own.shape)}")
        elif value.is_complex() and not own.is_complex():
            match.differing.append(f"{key} is {_kind(value)} and the network's {_kind(own)}")
        elif _loses(value, own):
            match.differing.append(f"{key} is {_kind(value)} and the network's {_kind(own)}")
        elif key.endswith("reset_mechanism_val") and value.item() != own.item():
            match.differing.append(f"{key} is {int(value)} and the network's {int(own)}")
        else:
            if value.dtype != own.dtype and value.is_floating_point() and own.is_floating_point():
                converted[_kind(value), _kind(own)] += 1
            match.state[key] = value.reshape(own.shape).to(own.dtype)
    match.differing.sort()
    for (saved, own_kind), count in converted.items():
        tensors = "tensor" if count == 1 else "tensors"
        match.notes.append(f"converted {count} {tensors} from {saved} to {own_kind}")


def _loses(value: Tensor, own: Tensor) -> bool:
    """Whether an integer of the network would not keep the saved value."""
    return (
        not own.is_floating_point() and not own.is_complex() and not torch.equal(value, value.to(own.dtype))
    )


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return ", ".join(sorted(keys)[:_SHOWN]) + more


def _misfit(match: _Match, path: Path, name: str) -> ExportError:
    lacks = [f"lacks {key}" for key in match.missing]
    extra = [f"has {key}, which the network has not" for key in match.unexpected]
    shown, hidden = [], 0
    for problems in (lacks, extra, match.differing):
        shown += problems[:_SHOWN]
        hidden += len(problems[_SHOWN:])
    more = f" and {hidden} more" if hidden else ""
    stripped = f" without the prefix {match.prefix!r}" if match.prefix else ""
    return ExportError(
        f"{path}: does not fit the network of {name}{stripped}: {'; '.join(shown)}{more}; {_remedy(match)}",
        path=str(path),
        problems=sorted(lacks + extra + match.differing),
    )


def _remedy(match: _Match) -> str:
    twice = [(key, own) for key in match.unexpected[:50] for own in match.state if key.endswith(f".{own}")]
    if twice:
        prefix = twice[0][0].removesuffix(twice[0][1])
        return f"it holds keys both with and without {prefix!r}; save one state dict"
    if any("parametrizations." in key or key.endswith(("_g", "_v")) for key in match.unexpected):
        return "remove the parametrizations from the network before saving it"
    if match.unexpected and match.covers:
        return "delete those keys before saving, or let the factory build the network that has them"
    if match.differing and not match.missing:
        return "let the factory build the network with the sizes that were saved"
    return "let the factory build the network that was saved, or rename the keys to those of its state_dict()"
