"""Why a trial was chosen, in sentences for people."""

from __future__ import annotations

from regraft.probe import ProbeResult
from regraft.search.prospect import Prospect
from regraft.search.trial import Gain, Trial
from regraft.tune import History, tap_name
from regraft.tune.history import waited


def describe_probe(result: ProbeResult) -> str:
    """A probe in a few words: head and where it reads."""
    candidate = result.candidate
    if candidate.members:
        cuts = list(dict.fromkeys(tap.cut for tap in candidate.taps))
        return f"the average of {len(candidate.members)} heads on {len(cuts)} stages from {cuts[0]} to {cuts[-1]}"
    return f"{candidate.head} on {' + '.join(map(tap_name, candidate.taps))}"


def why_recipe(trial: Trial) -> str:
    """That a recipe was asked for, and what came of it."""
    plan = trial.plan
    where = f"trained above {plan.where}{_fell_short(trial)}" if plan.updates else "nothing trained by gradient"
    if not plan.updates and trial.probe:
        where = f"{where}, {describe_probe(trial.probe)}"
    held = f"{percent(trial.val_accuracy)} on validation{_averaged(trial)}"
    return f"Recipe {trial.name} was asked for: {where}, {held}."


def _fell_short(trial: Trial) -> str:
    """That fewer updates were made than planned, and that none of them helped."""
    if trial.history is None:
        return ""
    made, planned = trial.history.rows[-1].updates, trial.plan.updates
    if not made and not trial.history.diverged:
        return ": the time was over before the first update, so the start is delivered; --time-limit 5m gives it more"
    short = f", {made} of {planned} updates{_until(trial, trial.history)}" if made < planned else ""
    if not trial.history.kept.epoch:
        return f"{short}; validation was best before the first of them, so the start is delivered"
    return short


def _until(trial: Trial, history: History) -> str:
    """Why a training ended."""
    if history.diverged:
        return f" (diverged by epoch {history.diverged}: no numbers any more; try a lower lr, or clip=1)"
    if trial.plan.steps:  # each of which may have ended for another reason
        return " until it was no better or the time was over"
    patience = trial.plan.recipe.patience
    return " until it was no better" if patience and waited(history.rows) >= patience else " until the time was over"


def why_probe(prospect: Prospect) -> str:
    """What the best probe is, beside the last layer alone."""
    best, last = prospect.profile.best, _last_layer(prospect)
    n = sum(len(prospect.features.labels(split)) for split in ("train", "val"))
    held = f"{percent(best.score)} ± {100 * best.se:.1f} held out of training and validation, N = {n}"
    text = f"The best probe is {describe_probe(best)}, {held}"
    return f"{text}; the last layer alone holds {percent(last.score)}." if last else f"{text}."


def why_trained(trial: Trial, gained: Gain) -> str:
    """What one way of training gave."""
    took = f"in {trial.seconds:.0f} s"
    if trial.history and trial.history.diverged:
        took += _until(trial, trial.history)
    return f"{trial.name}: {gained} over the probe on validation{_averaged(trial)}, {took}."


def why_no_time(seconds: float, probe: Trial, *, limited: bool) -> str:
    """That training was not begun, for how much time, and why it was no more."""
    none = f"no training was expected to fit the time: {seconds:.0f} s"
    if limited:
        return f"{none}, what --time-limit leaves for it"
    rows = len(probe.prospect.features.labels("train"))
    where = f"for {rows} training examples"
    if probe.plan.task.one_of:  # of labels and numbers, examples are not right or wrong
        where += f" and a probe with {percent(probe.val_accuracy)} right on validation"
    return f"{none}, which the search gives itself {where}. --time-limit 5m gives it more"


def why_chosen(tuned: Trial, gained: Gain) -> str:
    """What was made of the best training."""
    frozen, trained = (f"{tuned.plan.n_params(state):,}" for state in ("frozen", "trained"))
    where = f"Kept up to {_top(tuned)}, frozen up to {tuned.plan.cut} ({frozen} parameters; {trained} trained)"
    judged = f"{gained} over the probe on {gained.n} examples"
    if gained.convincing:
        return f"{where}: {judged}, so it is delivered."
    return f"{where} was the best training: {judged}, no more than the standard error, so the probe is delivered."


def percent(fraction: float) -> str:
    """A fraction as people read it."""
    return f"{100 * fraction:.1f} %"


def _averaged(trial: Trial) -> str:
    return f", averaged over {trial.views} views" if trial.views > 1 else ""


def _top(trial: Trial) -> str:
    """The highest activation that the head reads."""
    cuts = [trial.prospect.traced.cut(tap.cut) for tap in trial.plan.taps]
    return max(cuts, key=lambda cut: cut.index).name


def _last_layer(prospect: Prospect) -> ProbeResult | None:
    """The best head on the classifier's own input, if that is not the best of all."""
    name = prospect.traced.feature.name
    alone = [r for r in prospect.profile.results if [tap.cut for tap in r.candidate.taps] == [name]]
    last = max(alone, key=lambda r: r.score, default=None)
    return None if last is prospect.profile.best else last
