"""The study: what was tried and what came of it, in a file that Optuna opens.

    optuna.load_study(study_name="regraft", storage=JournalStorage(JournalFileBackend("study.log")))

Each trial is written when it ends, so that a killed search goes on with the next one; `optuna-dashboard` shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.errors import RunError, first_line
from regraft.run import damaged

if TYPE_CHECKING:
    import optuna

NAME = "regraft"
STUDY = "study.log"  # in the run folder


class Study:
    """Trials of a search, kept in a file.

    Args:
        path: the file; made if it is not there.

    Raises:
        RunError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
        try:
            self._study = optuna.create_study(
                study_name=NAME, storage=JournalStorage(backend), direction="maximize", load_if_exists=True
            )
        except (ValueError, KeyError, TypeError) as error:  # lines that are no JSON, or say nothing of a study
            raise RunError(damaged(path, first_line(error))) from error

    def once(self, what: str, make: Callable[[], Any]) -> Any:
        """A decision that a resumed search must not make again: what was stored, else made and stored now.

        Args:
            what: its name.
            make: gives a plain value.
        """
        if what not in self._study.user_attrs:
            self._study.set_user_attr(what, make())
        return self._study.user_attrs[what]

    def has(self, name: str) -> bool:
        """Whether a trial of this name has ended."""
        return any(trial.user_attrs.get("name") == name for trial in self._study.trials)

    def seconds(self, name: str) -> float:
        """What a trial that has ended took."""
        return next(t.user_attrs["seconds"] for t in self._study.trials if t.user_attrs.get("name") == name)

    def add(self, name: str, params: dict[str, str | float], value: float, facts: dict[str, Any]) -> None:
        """Write a trial that has ended; one that is there already is not written twice.

        Args:
            name: unique in the study.
            params: what distinguishes it.
            value: accuracy on validation.
            facts: further plain values; "curve" (epoch to accuracy) becomes its intermediate values.
        """
        if self.has(name):
            return
        from optuna.trial import create_trial

        trial = create_trial(
            params=params,
            distributions={key: _distribution(value) for key, value in params.items()},
            value=value,
            user_attrs={"name": name, **{key: fact for key, fact in facts.items() if key != "curve"}},
            intermediate_values=facts.get("curve", {}),
        )
        self._study.add_trial(trial)

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """All that ended, in order."""
        return self._study.trials


def _distribution(value: str | float) -> optuna.distributions.BaseDistribution:
    """Optuna asks what else a value could have been: nothing for names, any rate for rates."""
    from optuna import distributions

    if isinstance(value, str):
        return distributions.CategoricalDistribution([value])
    return distributions.FloatDistribution(1e-12, 1e3, log=True)
