"""What a rollback, a canary, a promotion change: decided here, as values; `apply` makes it so.

Where no version is pinned, a server serves the newest folder, and a rollback moves newer folders aside. Where versions
are pinned in `models.config`, folders stay and the pin moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from components.errors import PipelineError, UsageError, unknown_name
from serving.releases import record
from serving.releases.models_config import STABLE, Pin, serves_newest_only
from serving.releases.state import ModelState
from serving.releases.versions import StoredVersion, aside, back


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

    Raises:
        PipelineError: there is no version to go back to.
        UsageError: `to` is unknown or live already.
    """
    return _rollback_of_folders(state, to) if state.pin is None else _rollback_of_pin(state, state.pin, to)


def canary(state: ModelState, version: int | None) -> Plan:
    """`version` (default: the newest that was not rolled back) is served behind `canary`, beside the stable one.

    Raises:
        PipelineError: there is no version to try, or the policy in `models.config` is of another kind.
        UsageError: `version` is unknown or stable already.
    """
    pin = _pin_to_start_from(state)
    version = _newest_candidate(state, pin.stable) if version is None else _loadable(state, version)
    if version == pin.stable:
        older = [number for number in state.whole if number < version]
        remedy = f"Make another one stable first: mnist-tfx promote {state.model} {older[-1]}" if older else ""
        raise UsageError(f"version {version} of {state.model} is the live one. {remedy or _choices(state)}")
    return Plan(record.CANARY, pin.canary, version, (), pin.moved(stable=pin.stable, canary=version))


def promote(state: ModelState, version: int | None) -> Plan:
    """`version` (default: the canary) becomes stable and stays so until another one is promoted.

    Raises:
        PipelineError: the policy in `models.config` is of another kind.
        UsageError: no version was named and there is no canary; `version` is unknown or stable already.
    """
    pin = _pin_to_start_from(state)
    if version is None:
        if state.pin is None or state.pin.canary is None:
            raise UsageError(
                f"{state.model} has no canary to promote. Make one: mnist-tfx canary {state.model}; "
                f"or name the version to promote. {_choices(state)}"
            )
        version = state.pin.canary
    version = _loadable(state, version)
    if state.pin is not None and version == pin.stable:
        remedy = f" To withdraw the canary: mnist-tfx rollback {state.model}" if pin.canary is not None else ""
        raise UsageError(f"version {version} of {state.model} is stable already.{remedy}")
    return Plan(record.PROMOTE, state.live, version, (), pin.moved(stable=version, canary=None))


def follow_latest(state: ModelState) -> Plan:
    """No version is pinned any more: each push goes live at once. What is live now stays so.

    Newer versions that were not promoted are moved aside, as by a rollback: a server would take them up.

    Raises:
        UsageError: the newest version is followed already, or a canary is on trial.
    """
    if state.pin is None:
        raise UsageError(f"{state.model} follows its newest version already.")
    if state.pin.canary is not None:
        raise UsageError(
            f"version {state.pin.canary} of {state.model} is on trial. First promote it (mnist-tfx promote "
            f"{state.model}) or withdraw it (mnist-tfx rollback {state.model})."
        )
    stable = _loadable(state, state.pin.stable)
    return Plan(record.FOLLOW_LATEST, stable, stable, _asides(state, stable), None)


def _rollback_of_folders(state: ModelState, to: int | None) -> Plan:
    newest = max((version.number for version in state.stored), default=None)
    if to is None:
        older = [number for number in state.whole if newest is not None and number < newest]
        if not older:
            raise _nothing_before(state, newest)
        to = older[-1]
    if to == newest and to in state.whole:
        raise UsageError(f"version {to} of {state.model} is live already. {_choices(state)}")
    return Plan(record.ROLLBACK, newest, to, (*_restore(state, to), *_asides(state, to)), None)


def _rollback_of_pin(state: ModelState, pin: Pin, to: int | None) -> Plan:
    if to is None and pin.canary is not None:
        return Plan(record.ROLLBACK, pin.canary, pin.stable, (), pin.moved(stable=pin.stable, canary=None))
    if to is None:
        to = record.stable_before(state.releases, pin.stable)
        usable = [number for number in state.whole if number not in state.withdrawn]
        if to not in usable:
            to = max((number for number in usable if number < pin.stable), default=None)
        if to is None:
            raise _nothing_before(state, pin.stable)
    if to == pin.stable and pin.canary is None:
        raise UsageError(f"version {to} of {state.model} is live already. {_choices(state)}")
    before = pin.canary if to == pin.stable else pin.stable
    return Plan(record.ROLLBACK, before, to, _restore(state, to), pin.moved(stable=to, canary=None))


def _nothing_before(state: ModelState, version: int | None) -> PipelineError:
    if version is None:
        return PipelineError(f"{state.model} has no version. {_choices(state)}".rstrip())
    return PipelineError(
        f"no whole version of {state.model} is older than {version}, and the last one is not removed. "
        f"{_choices(state)}".rstrip()
    )


def _asides(state: ModelState, newest: int) -> tuple[tuple[Path, Path], ...]:
    """Moves what is newer than `newest` aside, the newest last: until then nothing changes for a server."""
    return tuple((version.path, aside(version)) for version in state.stored if version.number > newest)


def _restore(state: ModelState, number: int) -> tuple[tuple[Path, Path], ...]:
    """Brings a version back that was moved aside; nothing to do for one that is in its place."""
    if number in state.whole:
        return ()
    found = [version for version in state.rolled_back if version.number == number and version.whole]
    if not found:
        raise _unusable(state, number)
    return tuple((version.path, back(version)) for version in found)


def _loadable(state: ModelState, number: int) -> int:
    if number in state.whole:
        return number
    raise _unusable(state, number)


def _unusable(state: ModelState, number: int) -> UsageError:
    everything: list[StoredVersion] = [*state.stored, *state.rolled_back]
    of_it = [version for version in everything if version.number == number]
    if not of_it:
        known = {str(version.number) for version in everything if version.whole}
        return unknown_name(f"version of {state.model}", str(number), known)
    if of_it[0].whole:
        return UsageError(
            f"version {number} of {state.model} was rolled back and moved aside. "
            f"Bring it back: mnist-tfx rollback {state.model} --to {number}"
        )
    return UsageError(f"{of_it[0].path} holds no saved_model.pb: no server can load it. {_choices(state)}")


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
    if not serves_newest_only(state.config.message, state.model):
        raise PipelineError(
            f"{state.config.path} gives {state.model} a model_version_policy of its own. "
            "This command needs `specific`, or none: remove it from the file first."
        )
    if state.live is None:
        raise PipelineError(f"{state.model} has no version that a server could load. Push one with mnist-tfx run.")
    return Pin((state.live,), {STABLE: state.live})


def _choices(state: ModelState) -> str:
    stored = ", ".join(str(number) for number in state.whole)
    moved = ", ".join(str(version.number) for version in state.rolled_back if version.whole)
    return " ".join(
        text for text, listed in ((f"Stored: {stored}.", stored), (f"Rolled back: {moved}.", moved)) if listed
    )
