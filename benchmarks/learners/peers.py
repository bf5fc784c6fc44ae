"""The contestants from other libraries; runs in an environment of its own, `peers.txt`.

Each takes its library's fastest way that its documentation shows, for the same class of model where
the library has it: ridge regression an action.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bayesianbandits import Arm, ContextualAgent, NormalRegressor, ThompsonSampling
from contextualbandits.online import LinUCB
from mabwiser.mab import MAB, LearningPolicy
from river.bandit import LinUCBDisjoint
from river.linear_model import BayesianLinearRegression
from vowpalwabbit import Workspace

from benchmarks.learners.world import BATCHES, Case, Rows, Step, in_turns, serve


class _Peer:
    batches: Sequence[int] = BATCHES
    probabilities = False

    def decider(self, case: Case, learned: Rows) -> Callable[[int], object] | None:
        del case, learned
        return None


class Mabwiser(_Peer):
    name = "mabwiser"
    says = (
        "`MAB` with `LinTS`, `partial_fit`: float sums, and the inverse of each touched action. "
        "Decides by one draw of the weights."
    )

    def _begun(self, case: Case) -> Any:
        arms = list(range(case.actions))
        bandit = MAB(arms, LearningPolicy.LinTS(alpha=1.0, l2_lambda=1.0), seed=1, n_jobs=1)
        bandit.fit(np.array(arms), np.zeros(len(arms)), np.eye(len(arms), case.dimension))
        return bandit

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        bandit = self._begun(case)
        return in_turns(parts, lambda rows: bandit.partial_fit(rows.actions, rows.rewards, rows.x))

    def decider(self, case: Case, learned: Rows) -> Callable[[int], object]:
        bandit = self._begun(case)
        bandit.partial_fit(learned.actions, learned.rewards, learned.x)
        return lambda number: bandit.predict(learned.x[number : number + 1])


class ContextualBandits(_Peer):
    def __init__(self, method: str, how: str) -> None:
        self._method = method
        self.name = f"contextualbandits, {method}"
        self.says = f"`LinUCB`, `partial_fit`, float32 (its default): {how}"

    def _begun(self, case: Case) -> Any:
        policy = LinUCB(
            case.actions, fit_intercept=False, method=self._method, random_state=1, njobs=1
        )
        ready = np.eye(case.actions, case.dimension)
        policy.fit(ready, np.arange(case.actions), np.zeros(case.actions))
        return policy

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        policy = self._begun(case)
        return in_turns(parts, lambda rows: policy.partial_fit(rows.x, rows.actions, rows.rewards))

    def decider(self, case: Case, learned: Rows) -> Callable[[int], object]:
        policy = self._begun(case)
        policy.partial_fit(learned.x, learned.actions, learned.rewards)
        return lambda number: policy.predict(learned.x[number : number + 1])


class River(_Peer):
    name = "river, one by one"
    says = (
        "`LinUCBDisjoint.update`, a row at a time, from dicts made beforehand: precision and "
        "inverse by a rank-one step. Decides by `pull`."
    )

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        del case
        policy = LinUCBDisjoint(seed=1)
        ready = [_dicts(rows) for rows in parts]
        following = iter(range(2**62))

        def step() -> int:
            rows = ready[next(following) % len(ready)]
            for action, context, reward in rows:
                policy.update(action, context, reward)
            return len(rows)

        return step

    def decider(self, case: Case, learned: Rows) -> Callable[[int], object]:
        policy = LinUCBDisjoint(seed=1)
        rows, arms = _dicts(learned), list(range(case.actions))
        for action, context, reward in rows:
            policy.update(action, context, reward)
        return lambda number: policy.pull(arms, context=rows[number][1])


class RiverMany(_Peer):
    name = "river, learn_many"
    says = (
        "`BayesianLinearRegression.learn_many` an action, on pandas frames over the batch's rows: "
        "float sums, and the inverse of each touched action."
    )

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        models = [BayesianLinearRegression() for _ in range(case.actions)]
        names = [f"n{number:03d}" for number in range(case.dimension)]

        def learn(rows: Rows) -> None:
            for action, mine in _by_action(rows):
                x = pd.DataFrame(rows.x[mine], columns=names, copy=False)
                models[action].learn_many(x, pd.Series(rows.rewards[mine]))

        return in_turns(parts, learn)


class BayesianBandits(_Peer):
    name = "bayesianbandits"
    says = (
        "`ContextualAgent` of `NormalRegressor` arms, updated an arm at a time: float sums, solved "
        "for the mean at each. Decides by one Thompson draw, `pull`."
    )

    def _begun(self, case: Case) -> Any:
        arms = [Arm(k, learner=NormalRegressor(alpha=1.0, beta=4.0)) for k in range(case.actions)]
        return ContextualAgent(arms, ThompsonSampling(), random_seed=1)

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        agent = self._begun(case)
        return in_turns(parts, lambda rows: self._learn(agent, rows))

    def decider(self, case: Case, learned: Rows) -> Callable[[int], object]:
        agent = self._begun(case)
        self._learn(agent, learned)
        return lambda number: agent.pull(learned.x[number : number + 1])

    def _learn(self, agent: Any, rows: Rows) -> None:
        for action, mine in _by_action(rows):
            agent.select_for_update(action).update(rows.x[mine], rows.rewards[mine])


class VowpalWabbit(_Peer):
    name = "vowpalwabbit"
    says = (
        "`--cb_explore`, direct method, one linear model an action by gradient steps (no "
        "covariance: another class): `learn` on examples parsed beforehand, one by one. Decides "
        "with all probabilities, those of epsilon-greedy."
    )
    probabilities = True

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        driver = Workspace(_arguments(case))
        ready = [[driver.parse(line) for line in _lines(rows)] for rows in parts]
        following = iter(range(2**62))

        def step() -> int:
            examples = ready[next(following) % len(ready)]
            for example in examples:
                driver.learn(example)
            return len(examples)

        return step

    def decider(self, case: Case, learned: Rows) -> Callable[[int], object]:
        driver = Workspace(_arguments(case))
        lines = _lines(learned)
        for line in lines:
            driver.learn(line)
        ready = [driver.parse(line.partition(" ")[2]) for line in lines]
        return lambda number: driver.predict(ready[number])


class VowpalWabbitDriver(_Peer):
    name = "vowpalwabbit, driver"
    says = (
        "The same by its own batch driver over its binary cache of the rows, start included; CPU "
        "seconds of its two threads."
    )
    batches: Sequence[int] = BATCHES[-1:]

    def learner(self, case: Case, parts: Sequence[Rows]) -> Step:
        [rows] = parts
        self._folder = tempfile.TemporaryDirectory(prefix="bandstand-bench-")
        data = Path(self._folder.name) / "data.txt"
        data.write_text("\n".join(_lines(rows)) + "\n")
        driven = f"{_arguments(case)} --data {data} --cache"
        Workspace(driven).finish()

        def learn() -> int:
            driver = Workspace(driven)
            learned = int(driver.get_weighted_examples())
            driver.finish()
            assert learned == len(rows.actions)
            return learned

        return learn


def _arguments(case: Case) -> str:
    # Without the older form each row is unrolled to as many as there are actions, which is slower.
    explore = f"--cb_explore {case.actions} --cb_type dm --epsilon 0.05"
    return f"{explore} --cb_force_legacy --noconstant --quiet"


def _lines(rows: Rows) -> list[str]:
    return [
        f"{action + 1}:{1 - reward:g}:0.1 | " + " ".join(f"{i}:{v:.8g}" for i, v in enumerate(x))
        for x, action, reward in zip(rows.x.tolist(), rows.actions, rows.rewards, strict=True)
    ]


def _dicts(rows: Rows) -> list[tuple[int, dict[str, float], float]]:
    names = [f"n{number:03d}" for number in range(rows.x.shape[1])]
    return [
        (action, dict(zip(names, x, strict=True)), reward)
        for x, action, reward in zip(*(each.tolist() for each in rows), strict=True)
    ]


def _by_action(rows: Rows) -> list[tuple[int, Any]]:
    """Give each action of a batch with the indexes of its rows."""
    order = np.argsort(rows.actions, kind="stable")
    sorted_actions = rows.actions[order]
    starts = np.flatnonzero(np.diff(sorted_actions, prepend=-1))
    parts = np.split(order, starts[1:])
    return list(zip(sorted_actions[starts].tolist(), parts, strict=True))


def main() -> None:
    serve(
        [
            Mabwiser(),
            ContextualBandits("chol", "float sums, solved after every batch."),
            ContextualBandits("sm", "the inverse, by a rank-one step a row."),
            River(),
            RiverMany(),
            BayesianBandits(),
            VowpalWabbit(),
            VowpalWabbitDriver(),
        ]
    )


if __name__ == "__main__":
    main()
