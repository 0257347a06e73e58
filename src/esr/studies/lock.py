"""What a study is made of is fixed once its thresholds are known; until then a change costs the selection again."""

from __future__ import annotations

import json
from collections.abc import Mapping

from esr.errors import UserError
from esr.studies.config import StudyConfig
from esr.studies.store import Store


def is_locked(store: Store) -> bool:
    """Whether the study has thresholds, and so settings that do not change any more."""
    return store.record("calibration", "all") is not None


def check_settings(store: Store, config: StudyConfig) -> None:
    """Raises UserError that shows every difference, when the settings of a locked study changed."""
    stored = store.meta("settings")
    if stored is None or not is_locked(store):
        return
    _refuse_changes("a study that has results", json.loads(stored), config.locked())


def experiment_has_run(store: Store, key: str) -> bool:
    """Whether an experiment's work or its conditions are there. One that failed before may have its settings
    changed."""
    noted = store.record("experiment", key)
    return noted is not None and (
        "starts" in noted or bool(noted["controls"]) or store.record("result", key) is not None
    )


def check_experiment(store: Store, key: str, settings: Mapping[str, object]) -> None:
    """Raises UserError that shows every difference, when the settings of an experiment that has run changed."""
    if experiment_has_run(store, key):
        stored = store.record("experiment", key)
        assert stored is not None
        _refuse_changes(f"an experiment that has run ({key})", stored["settings"], dict(settings))


def _refuse_changes(whose: str, stored: object, now: object) -> None:
    before, after = _flat(stored), _flat(now)
    changed = [
        f"{name}: {before.get(name, '(not set)')} -> {after.get(name, '(not set)')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    if changed:
        raise UserError(
            f"the settings of {whose} do not change",
            "; ".join(changed),
            "Put them back, or start a new study in another folder",
        )


def hold_settings(store: Store, config: StudyConfig) -> None:
    """``check_settings``, and store the settings of a study that is not locked yet."""
    check_settings(store, config)
    if not is_locked(store):
        store.set_meta("settings", json.dumps(config.locked(), sort_keys=True))


def hold_files(store: Store, hashes: Mapping[str, str]) -> None:
    """Compare hashes of the files that settings only name with the stored ones, and store new ones.

    hashes: what it is, in the plural, to its hash. A change makes directions be chosen again. Raises UserError when the
    study is locked.
    """
    for name, found in hashes.items():
        stored = store.meta(f"fingerprint {name}")
        if stored == found:
            continue
        if stored is not None and is_locked(store):
            raise UserError(
                f"the {name} of a study that has results do not change",
                f"{stored} before, {found} now",
                "Start a new study in another folder",
            )
        if stored is not None:
            store.forget("selection")
        store.set_meta(f"fingerprint {name}", found)


def _flat(data: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(data, dict):
        return {prefix: data}
    return {
        name: value
        for key, child in data.items()
        for name, value in _flat(child, f"{prefix}.{key}".lstrip(".")).items()
    }
