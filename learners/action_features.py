"""How features of actions enter a linear model whose actions share weights.

A shared model sees ``phi(x, a)``: the columns of the subject, those of the action, and the products
of interactions between the two. The actions' features stand in the spec, so ``phi(x, a)`` is
``maps[a] @ x``, linear in the subject's columns x, whose first is always 1. That is why the sums of
x alone, an action, teach a shared model all that the sums of phi would.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from bandstand.schemas.spec import Spec
from bandstand.schemas.spec_features import ActionNumeric, column_ranges, product_names

__all__ = ["ActionFeatures"]


class ActionFeatures:
    """The columns that a spec's actions add to those of the subject.

    Parameters
    ----------
    spec
        With features of actions.

    Attributes
    ----------
    names
        Of the e columns: the actions' own, then the interactions of a subject's with them.
    maps
        float64[K, e, d]: the columns of action a are ``maps[a] @ x``.

    Examples
    --------
    >>> from bandstand.schemas.spec import parse_spec
    >>> features = ActionFeatures(parse_spec('''
    ... bandit: home
    ... actions: [cheap, dear]
    ... features: [{name: age, kind: numeric, low: 0, high: 100}]
    ... action_features:
    ...   - {name: price, kind: numeric, low: 0, high: 4, of: {cheap: 1, dear: 4}}
    ... interactions: [[age, price]]
    ... policy: {name: shared_linear_thompson}
    ... reward: {name: click}
    ... ''', "home.yaml"))
    >>> features.names
    ('price', 'age*price')
    >>> features.maps @ [1.0, 0.5]
    array([[-0.5 , -0.25],
           [ 1.  ,  0.5 ]])
    """

    def __init__(self, spec: Spec) -> None:
        given = spec.action_features
        single = tuple(column for feature in given for column in feature.columns)
        self.names = (*single, *product_names(spec.features, given, spec.interactions))
        values = np.array([_values(spec, action) for action in spec.actions])
        self.maps = np.zeros((len(spec.actions), len(self.names), len(spec.feature_names)))
        self.maps[:, np.arange(len(single)), 0] = values
        row = len(single)
        subject, action = column_ranges(spec.features, 1), column_ranges(given)
        for first, second in spec.interactions:
            for left, right in product(subject[first], action.get(second, ())):
                self.maps[:, row, left] = values[:, right]
                row += 1


def _values(spec: Spec, action: str) -> list[float]:
    """Give the columns of an action."""
    values: list[float] = []
    for feature in spec.action_features:
        if isinstance(feature, ActionNumeric):
            middle, half = feature.low / 2 + feature.high / 2, feature.high / 2 - feature.low / 2
            values.append((feature.of[action] - middle) / half)
        else:
            values += [float(feature.of[action] == value) for value in feature.values]
    return values
