"""What a rollback, a canary, a promotion change: decided here, as values; `apply` makes it so.

Where no version is pinned, a server serves the newest folder, and a rollback moves newer folders aside. Where versions
are pinned in `models.config`, folders stay and the pin moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mnist_tfx.contract import releases
from mnist_tfx.contract.errors import PipelineError, UsageError, unknown_name
from mnist_tfx.contract.models_config import STABLE, Pin
from mnist_tfx.serving.releases.state import ModelState


@dataclass(frozen=True)
class Plan:
    """A change of one model."""

    action: str
    before: int | None  # the version that loses the role, if any
    after: int  # the version that gets it
    moves: tuple[tuple[Path, Path], ...]  # made in this order, before the pin; the last one changes what is served
    pin: Pin | None  # afterwards


def rollback(state: ModelState, to: int | None) -> Plan:
    """The version before the live one, or `to`, becomes live; a canary is withdrawn.

    Without `to` and with a canary on trial, the canary alone is withdrawn and the stable version stays.

    Raises PipelineError where there is no version to go back to, UsageError where `to` is unknown or live already.
    """
    _check_listed(state)
    pin = state.pin
    is_trial = pin is not None and pin.canary is not None
    live = pin.stable if pin is not None else max((version.number for version in state.stored), default=None)
    if is_trial:
        fallback = live
    else:
        usable = [number for number in state.whole if number not in state.withdrawn]
        fallback = releases.stable_before(state.releases, pin.stable) if pin is not None else None
        if fallback not in usable:
            fallback = max((number for number in usable if live is not None and number < live), default=None)
    target = fallback if to is None else to
    if target is None:
        nothing = f"no whole version of {state.model} is older than {live}, and the last one is not removed"
        raise PipelineError(f"{nothing if live is not None else f'{state.model} has no version'}. {_choices(state)}")
    if target == live and not is_trial and (pin is not None or target in state.whole):
        raise UsageError(f"version {target} of {state.model} is live already. {_choices(state)}")
    if pin is None:
        return Plan(releases.ROLLBACK, live, target, (*_restore(state, target), *_asides(state, target)), None)
    before = pin.canary if target == live else live
    moves = _restore(state, target) if target != live else ()
    return Plan(releases.ROLLBACK, before, target, moves, pin.moved(stable=target, canary=None))


def canary(state: ModelState, version: int | None) -> Plan:
    """`version` (default: the newest that was not rolled back) is served behind `canary`, beside the stable one.

    Raises PipelineError where there is no version to try, UsageError where `version` is unknown or stable already.
    """
    _check_listed(state)
    pin = _pin_to_start_from(state)
    version = _newest_candidate(state, pin.stable) if version is None else _loadable(state, version)
    if version == pin.stable:
        older = [number for number in state.whole if number < version]
        remedy = f"Make another one stable first: mnist-tfx promote {state.model} {older[-1]}" if older else ""
        raise UsageError(f"version {version} of {state.model} is the live one. {remedy or _choices(state)}")
    return Plan(releases.CANARY, pin.canary, version, (), pin.moved(stable=pin.stable, canary=version))


def promote(state: ModelState, version: int | None) -> Plan:
    """`version` (default: the canary) becomes stable and stays so until another one is promoted.

    Raises UsageError where none was named and there is no canary, or `version` is unknown or stable already.
    """
    pin = _pin_to_start_from(state)
    version = version if version is not None or state.pin is None else state.pin.canary
    if version is None:
        raise UsageError(
            f"{state.model} has no canary to promote. Make one: mnist-tfx canary {state.model}; "
            f"or name the version to promote. {_choices(state)}"
        )
    version = _loadable(state, version)
    if state.pin is not None and version == pin.stable:
        remedy = f" To withdraw the canary: mnist-tfx rollback {state.model}" if pin.canary is not None else ""
        raise UsageError(f"version {version} of {state.model} is stable already.{remedy}")
    return Plan(releases.PROMOTE, state.live, version, (), pin.moved(stable=version, canary=None))


def follow_latest(state: ModelState) -> Plan:
    """No version is pinned any more: each push goes live at once. What is live now stays so.

    Newer versions that were not promoted are moved aside, as by a rollback: a server would take them up.
    Raises UsageError where the newest version is followed already, or a canary is on trial.
    """
    if state.pin is None:
        raise UsageError(f"{state.model} follows its newest version already.")
    if state.pin.canary is not None:
        raise UsageError(
            f"version {state.pin.canary} of {state.model} is on trial. First promote it (mnist-tfx promote "
            f"{state.model}) or withdraw it (mnist-tfx rollback {state.model})."
        )
    stable = _loadable(state, state.pin.stable)
    return Plan(releases.FOLLOW_LATEST, stable, stable, _asides(state, stable), None)


def _check_listed(state: ModelState) -> None:
    if state.config.lists_nothing:
        raise PipelineError(
            f"{state.config.path} lists no model: what was pinned is lost, and what a running server serves of "
            f"{state.model} cannot be told from it. Say which version is to be live: mnist-tfx promote {state.model} "
            f"VERSION. {_choices(state)}"
        )


def _asides(state: ModelState, newest: int) -> tuple[tuple[Path, Path], ...]:
    """Moves what is newer than `newest` aside, the newest last: until then nothing changes for a server."""
    return tuple((version.path, version.other_place) for version in state.stored if version.number > newest)


def _restore(state: ModelState, number: int) -> tuple[tuple[Path, Path], ...]:
    """Brings a version back that was moved aside; nothing to do for one that is in its place."""
    found = [version for version in state.rolled_back if version.number == number and version.whole]
    if number not in state.whole and not found:
        _loadable(state, number)
    return () if number in state.whole else tuple((version.path, version.other_place) for version in found)


def _loadable(state: ModelState, number: int) -> int:
    """The number, if a server finds that version and can load it. Raises UsageError."""
    if number in state.whole:
        return number
    everything = [*state.stored, *state.rolled_back]
    version = next((version for version in everything if version.number == number), None)
    if version is None:
        known = {str(version.number) for version in everything if version.whole}
        raise unknown_name(f"version of {state.model}", str(number), known)
    if not version.whole:
        raise UsageError(f"{version.path} holds no saved_model.pb: no server can load it. {_choices(state)}")
    raise UsageError(
        f"version {number} of {state.model} was rolled back and moved aside. "
        f"Bring it back: mnist-tfx rollback {state.model} --to {number}"
    )


def _newest_candidate(state: ModelState, stable: int) -> int:
    candidates = [number for number in state.whole if number > stable and number not in state.withdrawn]
    if candidates:
        return candidates[-1]
    remedy = (
        "Name the version to try, or push a new one with mnist-tfx run."
        if state.pin is not None
        else f"Each push goes live at once. So that the next one waits: mnist-tfx promote {state.model} {stable}"
    )
    raise PipelineError(
        f"no version of {state.model} is newer than the live one, {stable}, and was not rolled back. {remedy}"
    )


def _pin_to_start_from(state: ModelState) -> Pin:
    """The pin, or one that pins what is live now."""
    if state.pin is not None:
        return state.pin
    if state.live is None:
        raise PipelineError(f"{state.model} has no version that a server could load. Push one with mnist-tfx run.")
    return Pin((state.live,), {STABLE: state.live})


def _choices(state: ModelState) -> str:
    moved = {version.number for version in state.rolled_back if version.whole}
    told = [("Stored", state.whole), ("Rolled back", sorted(moved))]
    return " ".join(f"{what}: {', '.join(map(str, numbers))}." for what, numbers in told if numbers)
