"""What is served, and what was changed, in words and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mnist_tfx.contract import releases
from mnist_tfx.contract.models_config import CANARY, Pin
from mnist_tfx.contract.versions import StoredVersion
from mnist_tfx.serving.client import VersionStatus
from mnist_tfx.serving.releases.apply import Released
from mnist_tfx.serving.releases.state import ModelState

_SHOWN_RELEASES = 5
_STYLES = {"live": "bold green", "canary": "cyan", "incomplete": "red", "not promoted": "yellow"}


@dataclass(frozen=True)
class ServerAnswer:
    """What one server said of a model; `states` is None, and `problem` says why, where it said nothing."""

    address: str
    states: Mapping[int, VersionStatus] | None
    problem: str


def released_lines(released: Released, problems: Mapping[str, str | None]) -> list[str]:
    """What was changed. `problems` has, by address, None for a server that serves the model as the files now say."""
    plan, before, after = released.plan, released.before, released.after
    lines = [_headline(released)]
    asides = [destination for _, destination in plan.moves if destination.parent != after.folder]
    lines += [f"moved aside: {path}" for path in asides]
    lines += [f"brought back: {destination}" for _, destination in plan.moves if destination not in asides]
    if plan.action == releases.ROLLBACK and plan.before is not None:
        back = "rollback {} --to {}" if plan.pin is None else "promote {} {}"
        lines.append(f"to make it live again: mnist-tfx {back.format(after.model, plan.before)}")
    if before.config.text != after.config.text:
        lines.append(f"written: {after.config.path}")
        if before.config.kept_as is not None:
            lines.append(f"the one before it, written by hand, is kept: {before.config.kept_as}")
    if before.config.text is None and after.config.text is not None:
        lines.append(
            "It is new. mnist-tfx serve takes it up; a tensorflow_model_server started without it must be restarted."
        )
    for address, problem in problems.items():
        told = "serves it" if problem is None else f"{problem}; a server of this home takes it up when it starts"
        lines.append(f"{address}: {told}")
    return lines + ([] if None in problems.values() else _notes_on_unreached(released))


def released_json(released: Released, problems: Mapping[str, str | None]) -> dict[str, Any]:
    """The same as JSON."""
    plan, after = released.plan, released.after
    return {
        "model": after.model,
        "action": plan.action,
        "from": plan.before,
        "to": plan.after,
        "live": after.live,
        "moved": [[str(source), str(destination)] for source, destination in plan.moves],
        "pinned": None if after.pin is None else {"versions": after.pin.versions, "labels": dict(after.pin.labels)},
        "servers": [{"address": address, "problem": problem} for address, problem in problems.items()],
    }


def status_page(state: ModelState, runs: Mapping[tuple[str, str], str], answers: list[ServerAnswer]) -> RenderableType:
    """One model: its versions, what a person should know, the last changes."""
    mode = "each push goes live at once" if state.pin is None else "pinned: what is pushed waits until it is promoted"
    if state.config.lists_nothing:
        mode = f"{state.config.path.name} lists no model"
    head = Text.assemble((state.model, "bold"), f"  {state.folder}  ({mode})")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ("version", "status", "labels", "pushed by run", *(answer.address for answer in answers if answer.states))
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column == "version" else "left")
    for row in _rows(state, runs, answers):
        status = Text(row["status"], _STYLES.get(row["status"], ""))
        servers = [_server_cell(row["servers"][answer.address]) for answer in answers if answer.states]
        table.add_row(row["folder"], status, ", ".join(row["labels"]), row["run"] or "", *servers)
    parts: list[RenderableType] = [head]
    if table.row_count:
        parts.append(table)
    cards = [version.card for version in state.stored if version.number == state.live and version.card]
    parts += [Text(f"model card: {card}") for card in cards]
    notes = notes_on(state) + [f"{answer.address}: {answer.problem}" for answer in answers if answer.states is None]
    parts += [Text(f"- {note}") for note in notes]
    parts += [Text(_release_line(release)) for release in state.releases[-_SHOWN_RELEASES:]]
    return Group(*parts)


def status_json(state: ModelState, runs: Mapping[tuple[str, str], str], answers: list[ServerAnswer]) -> dict[str, Any]:
    """The same as JSON, with every recorded change."""
    return {
        "model": state.model,
        "folder": str(state.folder),
        "live": state.live,
        "canary": None if state.pin is None else state.pin.canary,
        "pinned": state.pin is not None,
        "versions": _rows(state, runs, answers),
        "notes": notes_on(state),
        "servers": [{"address": answer.address, "problem": answer.problem or None} for answer in answers],
        "releases": [asdict(release) for release in state.releases],
    }


def status_of(state: ModelState, version: StoredVersion) -> str:
    """One word or two on a version."""
    if version.is_rolled_back:
        return "rolled back"
    if not version.whole:
        return "incomplete"
    if version.number == state.live:
        return "live"
    if state.pin is None:
        return "stored"
    if version.number == state.pin.canary:
        return "canary"
    if version.number in state.pin.versions:
        return "served"
    if version.number in state.withdrawn:
        return "rolled back"
    return "not promoted" if version.number > state.pin.stable else "stored"


def notes_on(state: ModelState) -> list[str]:
    """What a person should know about the state of a model, in sentences."""
    model, pin, config = state.model, state.pin, state.config
    notes = [] if state.stored else [f"{model} has no version that a server could serve."]
    for version in state.stored:
        twins = [other.path.name for other in state.stored if other.number == version.number]
        if len(twins) > 1 and version.path.name == twins[0]:
            notes.append(f"{' and '.join(twins)} are one and the same version to a server. Remove one.")
        if not version.whole:
            notes.append(
                f"{version.path} holds no saved_model.pb: a copy that was not finished? No server can load it. "
                "Finish the copy, or remove it."
            )
        if version.number == state.live:
            notes += [
                f"version {version.number} is live, and was pushed with {caution}" for caution in version.cautions
            ]
    if config.lists_nothing:
        notes.append(
            f"{config.path} lists no model. A server that runs keeps what it has; one that starts with it serves "
            f"nothing. Write it anew: mnist-tfx promote {model} VERSION. Or remove it: then each push goes live."
        )
    elif config.text is not None and model not in config.models and state.stored:
        notes.append(
            f"{config.path} does not list {model}: a server that reads this file does not serve it. "
            "The next canary, promote or rollback by label, of any model, adds it."
        )
    return notes if pin is None else notes + _notes_on_pin(state, pin)


def _notes_on_pin(state: ModelState, pin: Pin) -> list[str]:
    model = state.model
    notes = [
        f"version {version} is pinned, but is not there or not whole: {state.folder / str(version)}"
        for version in sorted({*pin.versions, *pin.labels.values()})
        if version not in state.whole
    ]
    notes += [
        f"the label {label!r} names version {version}, which is not among the versions served."
        for label, version in pin.labels.items()
        if version not in pin.versions
    ]
    if pin.canary is not None:
        notes.append(
            f"requests that name no label or version get version {pin.highest}, the highest one served. "
            "Clients that want the stable version ask for the label 'stable'."
        )
    waiting = [version.number for version in state.stored if status_of(state, version) == "not promoted"]
    if waiting:
        notes.append(
            f"version {waiting[-1]} is stored, but not served: {pin.stable} is pinned as stable. Try it: "
            f"mnist-tfx canary {model} {waiting[-1]}; make it live: mnist-tfx promote {model} {waiting[-1]}"
        )
    unlabelled = [str(version) for version in pin.versions if version not in pin.labels.values()]
    if unlabelled and pin.labels:
        notes.append(
            f"served without a label: {', '.join(unlabelled)}. If a canary was broken off, call mnist-tfx canary again."
        )
    return notes


def _notes_on_unreached(released: Released) -> list[str]:
    """How to take along a server that runs unseen, where it refuses the file for a label on what it has not loaded."""
    plan, before, after = released.plan, released.before, released.after
    if before.pin is None or after.pin is None or plan.after in before.served:
        return []
    if all(before.pin.labels.get(label, version) == version for label, version in after.pin.labels.items()):
        return []  # a label that is new may go first
    # Back to labels that such a server has; from there by its address, in steps that it follows.
    if plan.action == releases.CANARY:
        steps = [f"rollback {after.model}", f"canary {after.model} {plan.after}"]
    else:
        to = "--to " if plan.action == releases.ROLLBACK else ""
        steps = [f"promote {after.model} {before.pin.stable}", f"{plan.action} {after.model} {to}{plan.after}"]
    commands = ", then ".join(f"mnist-tfx {step} --address HOST:PORT" for step in steps)
    return [
        "A server that runs, polls this file and was not reached refuses it and answers as before, until it restarts: "
        f"a label moves to version {plan.after}, which it has not loaded. Restart it, or take it along: {commands} "
        "(and --ca where it speaks TLS)."
    ]


def _headline(released: Released) -> str:
    plan, before, after = released.plan, released.before, released.after
    model, labels = after.model, (after.pin.labels if after.pin is not None else {})
    match plan.action:
        case releases.CANARY:
            assert after.pin is not None
            return (
                f"{model}: version {plan.after} is the canary beside the stable version {after.pin.stable}.\n"
                f"Requests that name no label or version get {after.pin.highest}; for the stable one ask for 'stable'."
            )
        case releases.PROMOTE:
            instead = f" instead of {plan.before}" if plan.before not in (None, plan.after) else ""
            both = "; the label 'canary' leads to it too" if CANARY in labels else ""
            return f"{model}: version {plan.after} is stable{instead}, until another one is promoted{both}."
        case releases.FOLLOW_LATEST:
            lost = ", ".join(repr(label) for label in (before.pin.labels if before.pin is not None else {}))
            return f"{model}: from here on each push goes live at once; now {plan.after} is live. Labels gone: {lost}."
        case _ if before.pin is not None and before.pin.canary == plan.before:
            return f"{model}: the canary {plan.before} is withdrawn; version {plan.after} stays stable."
        case _:
            return f"{model}: version {plan.after} is live instead of {plan.before}."


def _rows(state: ModelState, runs: Mapping[tuple[str, str], str], answers: list[ServerAnswer]) -> list[dict[str, Any]]:
    """One per version, the newest first."""

    def row(version: StoredVersion) -> dict[str, Any]:
        labels = state.pin.labels if state.pin is not None and not version.is_rolled_back else {}
        return {
            "version": version.number,
            "folder": version.path.name,
            "status": status_of(state, version),
            "labels": [label for label, number in labels.items() if number == version.number],
            "run": runs.get((state.model, str(version.number))),
            "card": str(version.card) if version.card else None,
            "servers": {
                answer.address: {"state": said.state, "error": said.error_message}
                if (said := (answer.states or {}).get(version.number)) is not None
                else None
                for answer in answers
            },
        }

    versions = sorted((*state.stored, *state.rolled_back), key=lambda version: version.number, reverse=True)
    return [row(version) for version in versions]


def _server_cell(said: Mapping[str, str] | None) -> str:
    if said is None:
        return ""
    return f"{said['state']}: {said['error']}" if said["error"] else said["state"]


def _release_line(release: releases.Release) -> str:
    change = f"{release.before} -> {release.after}" if release.before is not None else f"-> {release.after}"
    outcome = {releases.DONE: "", releases.FAILED: "  (failed)", releases.BEGUN: "  (not finished)"}[release.outcome]
    reason = f"  {release.reason}" if release.reason else ""
    return f"{release.time}  {release.by}  {release.action} {change}{reason}{outcome}"
