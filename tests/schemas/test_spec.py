"""What a spec accepts, what it refuses, and what its hashes depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bandstand.errors import SpecError
from bandstand.learners.linear_thompson import LinearThompsonSpec
from bandstand.schemas.spec import Spec, load_spec, parse_spec
from bandstand.schemas.spec_words import refuse_repeats, without

GOOD = """
bandit: homepage
actions: [no, yes, '3']
features:
  - {name: age, kind: numeric, low: 18, high: 9e1}
  - {name: country, kind: categorical, values: [ch, no]}
  - {name: page, kind: hashed, buckets: 2}
policy: {name: linear_thompson, exploration: 0.5}
reward: {name: click}
floor: 1e-3
"""

BAD = """bandit: home|page
lane: default
lane: other
actions: [a, 7, c]
features:
  - {name: age, kind: numeric, low: 10, high: 1}
  - {name: c, kind: categoric, values: [x]}
  - {name: intercept, kind: hashed, bucket: 4}
  - {name: q}
  - [x]
policy:
  name: linear_thomson
reward:
  aggregate: frist
  default: 4
florr: 0.1
"""

BETA = "bandit: b\nactions: {actions}\npolicy: {policy}\nreward: {reward}\n{more}\n"


def beta(
    actions: str = "[x, y]",
    policy: str = "{name: beta_thompson}",
    reward: str = "{name: click}",
    more: str = "",
) -> Spec:
    """Parse a small spec with one part replaced."""
    text = BETA.format(actions=actions, policy=policy, reward=reward, more=more)
    return parse_spec(text, "b.yaml")


def test_a_good_spec_is_read_as_yaml_1_2() -> None:
    """Words like no stay words, 1e-3 is a number, and defaults are filled in."""
    spec = parse_spec(GOOD, "good.yaml")
    assert spec.actions == ("no", "yes", "3")
    assert spec.floor == 0.001
    assert isinstance(spec.policy, LinearThompsonSpec)
    assert (spec.policy.exploration, spec.policy.prior_precision) == (0.5, 1.0)
    assert spec.feature_names == (
        "intercept",
        "age",
        "country=ch",
        "country=no",
        "page#0",
        "page#1",
    )


def test_a_spec_has_ten_thousand_actions_at_most() -> None:
    """As many are read; one more is refused, and says how many there are."""
    names = [f"a{number}" for number in range(10_001)]
    data = {"bandit": "b", "policy": {"name": "ucb1"}, "reward": {"name": "click"}}
    assert len(Spec.model_validate({**data, "actions": names[1:]}).actions) == 10_000
    with pytest.raises(ValidationError, match="must have at most 10000, but has 10001"):
        Spec.model_validate({**data, "actions": names})


class Counting(str):
    """A word that counts how often words were compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counting.compared += 1
        return str.__eq__(self, other)


def test_looking_for_repeats_takes_no_longer_a_word() -> None:
    """Ten times as many words take ten times as many comparisons at most."""
    words = [Counting(number) for number in range(10_000)]
    refuse_repeats(words)
    assert without(words, words[1:]) == words[:1]
    assert Counting.compared < 5 * len(words)
    with pytest.raises(ValueError, match="must be distinct; repeated: '3', '7'"):
        refuse_repeats([*words, "7", "3"])


def test_every_mistake_is_named_at_once() -> None:
    """Each message has file, line, place, value and what is allowed."""
    with pytest.raises(SpecError) as caught:
        parse_spec(BAD, "bad.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "bad.yaml has 15 mistakes:"
    for expected in [
        "bad.yaml:3: key 'lane' stands twice, first on line 2",
        "bad.yaml:1: bandit: 'home|page' doesn't match the allowed pattern",
        "bad.yaml:4: actions[1]: 7 isn't text; put it in quotes",
        "bad.yaml:6: features[0].high: 1 must be greater than low (10)",
        "bad.yaml:7: features[1].kind: 'categoric'; did you mean 'categorical'? allowed: numeric",
        "bad.yaml:8: features[2].name: 'intercept' is the name of the built-in column",
        "bad.yaml:8: features[2].buckets: missing; required here: name, buckets",
        "bad.yaml:8: features[2].bucket: unknown key; did you mean 'buckets'? allowed: name, kind",
        "bad.yaml:9: features[3].kind: missing; allowed: numeric, categorical, hashed",
        "bad.yaml:10: features[4]: ['x'] isn't a mapping",
        "bad.yaml:12: policy.name: 'linear_thomson'; did you mean 'linear_thompson'? allowed: be",
        "bad.yaml:13: reward.name: missing; required here: name",
        "bad.yaml:14: reward.aggregate: 'frist'; did you mean 'first'? allowed: first, last, sum",
        "bad.yaml:15: reward.default: 4 must lie between low (0) and high (1)",
        "bad.yaml:16: florr: unknown key; did you mean 'floor'? allowed: bandit, description",
    ]:
        assert any(expected in line for line in lines), expected


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"actions": "[]"}, "b.yaml:2: actions: [] must have at least 1"),
        ({"actions": "[x, x]"}, "b.yaml:2: actions: ['x', 'x'] must be distinct; repeated: 'x'"),
        ({"actions": "[x, 'a|b']"}, "b.yaml:2: actions[1]: 'a|b' must be printable text without"),
        ({"actions": '[x, "a\\n"]'}, "b.yaml:2: actions[1]: 'a\\n' must be printable text"),
        ({"actions": "[x, ' a']"}, "b.yaml:2: actions[1]: ' a' must be printable text"),
        ({"actions": "x"}, "b.yaml:2: actions: 'x' isn't a list"),
        ({"policy": "beta_thompson"}, "b.yaml:3: policy: 'beta_thompson' isn't a mapping"),
        (
            {"policy": "{name: beta_thompson, prior_successes: 0}"},
            "b.yaml:3: policy.prior_successes: 0: should be greater than or equal to 0.1",
        ),
        (
            {"policy": "{name: linear_thompson, noise_variance: '1'}"},
            "b.yaml:3: policy.noise_variance: '1': should be a valid number",
        ),
        (
            {"policy": "{name: linear_thompson, prior_precision: .inf}"},
            "b.yaml:3: policy.prior_precision: inf: should be less than or equal to 1000000000",
        ),
        (
            {"policy": "{name: linear_thompson, prior_precision: 1e-6}"},
            "b.yaml:3: policy.noise_variance: 0.25 times prior_precision (1e-06) must be at least",
        ),
        ({"reward": "{name: c, low: 1}"}, "b.yaml:4: reward.high: 1.0 must be greater than low"),
        ({"reward": "{name: c, low: 3, high: 4}"}, "reward.default: 0.0 must lie between low (3)"),
        (
            {"reward": "{name: c, plus: [{name: d, weight: 3, default: 1}]}"},
            "reward.default: 0.0 gives 3 where no reward came, which must lie between low (0)",
        ),
        (
            {"reward": "{name: c, plus: [{name: d}, {name: d, aggregate: sum}, {name: d}]}"},
            "must be distinct; repeated: 'first of d'",
        ),
        ({"reward": "{name: c, plus: [{name: c}]}"}, "must be distinct; repeated: 'first of c'"),
        (
            {"reward": "{name: c, plus: [{wieght: 3}]}"},
            "reward.plus[0].wieght: unknown key; did you mean 'weight'? allowed: name, aggregate,",
        ),
        ({"reward": "{name: c, cost: {}}"}, "reward.cost: {} names nothing that costs; give"),
        (
            {"reward": "{name: c, cost: {actions: {x: 0.5}}}"},
            "leaves -0.5 of 'x' where no reward came, which must lie between low (0) and high (1)",
        ),
        (
            {"reward": "{name: c, low: -1, cost: {actions: {z: 0.5}}}"},
            "has a cost of unknown actions: 'z'; allowed: x, y",
        ),
        (
            {"reward": "{name: c, low: -1, cost: {actions: {x: 0.5}, absent: 1}}"},
            "b.yaml:4: reward.cost.absent: 1 is for attributes; give action_attribute or",
        ),
        (
            {"reward": "{name: c, keep_probability: {attribute: a, least: 1e-4}}"},
            "reward.keep_probability.least: 0.0001: should be greater than or equal to 0.001",
        ),
        ({"more": "prior: {mean: 0.5}"}, "b.yaml:5: prior.strength: None needs a mean beside it"),
        ({"more": "prior: {strength: 5}"}, "b.yaml:5: prior.strength: 5 needs a mean beside it"),
        ({"more": "prior: {}"}, "b.yaml:5: prior.actions: {} must say something where mean isn't"),
        (
            {"more": "prior: {actions: {z: {mean: 0.5, strength: 3}}}"},
            "speaks of unknown actions: 'z'; allowed: x, y",
        ),
        (
            {"more": "prior: {actions: {y: {mean: 1.5, strength: 3}}}"},
            "expects 1.5 of 'y', which must lie between the reward's low (0) and high (1)",
        ),
        (
            {"more": "prior: {mean: 0.001, strength: 10}"},
            "less than 0.1 outcomes of the rarer kind (0.001 of them are); give at least 100",
        ),
        (
            {"policy": "{name: ucb1}", "more": "prior: {mean: 0.5, strength: 5}"},
            "can't be used: ucb1 has no prior; remove it",
        ),
        (
            {"more": "new_actions: {share: 0.6, outcomes: 5}"},
            "has a share of 0.6; allowed: up to 1 / number of actions (0.5)",
        ),
        (
            {"more": "prior: {actions: {x: {mean: 0.1, strngth: 10}}}"},
            "b.yaml:5: prior.actions.x.strngth: unknown key; did you mean 'strength'? allowed:",
        ),
        (
            {"actions": "[mean]", "more": "prior: {actions: {mean: {mean: 0.1}}}"},
            "b.yaml:5: prior.actions.mean.strength: missing; required here: mean, strength",
        ),
        (
            {
                "policy": "{name: linear_thompson}",
                "more": "features: [{name: f, kind: numeric, low: 0, high: 1, numeric: 3}]",
            },
            "b.yaml:5: features[0].numeric: unknown key; allowed: name, kind, low, high",
        ),
        (
            {
                "policy": "{name: linear_thompson}",
                "more": "features: [{name: f, kind: numeric, low: 0, high: 4e-308}]",
            },
            "features[0].high: 4e-308 must be greater than low (0), by 4.5e-308 at least and by a",
        ),
        (
            {"policy": "{name: linear_thompson}", "more": "interactions: [[age]]"},
            "b.yaml:5: interactions[0][1]: missing; the list must have 2 entries",
        ),
        (
            {"policy": '{name: "\\ud83d"}'},
            "b.yaml:3: '\\ud83d' has half of a surrogate pair, which is no character; write the",
        ),
        (
            {"more": 'description: {? "\\ud83d" : 1}'},
            "b.yaml:5: '\\ud83d' has half of a surrogate pair, which is no character; write the",
        ),
        ({"more": 'description: "\\UFFFFFFFF"'}, "b.yaml: not YAML: "),
        (
            {"more": "widened: {floor: 0.5, until: '0001-01-01T00:00:00+14:00'}"},
            "widened.until: '0001-01-01T00:00:00+14:00' must lie in the years 1 to 9999 of UTC",
        ),
        ({"more": "new_actions: {share: 0.1}"}, "new_actions.outcomes: missing; required here:"),
        ({"more": "floor: 0.6"}, "b.yaml:5: floor: 0.6 must lie between 0 and 1 / number of"),
        ({"more": "floor: true"}, "b.yaml:5: floor: True: should be a valid number"),
        ({"more": "features: [{name: a, kind: hashed, buckets: 3}]"}, "learns without context"),
        ({"more": "floor: !!python/object 3"}, "b.yaml:5: tag 'tag:yaml.org,2002:python/object'"),
        ({"more": "lane: &x default\ndescription: *x"}, "aliases aren't allowed"),
        ({"more": "floor: " + "9" * 5000}, "b.yaml:5: floor: inf: should be a finite number"),
        ({"more": "? [a]\n: b"}, "b.yaml:5: a key must be a word"),
        ({"more": "floor: ["}, "not YAML: "),
        ({"more": "description: \x00"}, "b.yaml: not YAML: unacceptable character"),
        ({"more": "description: " + "[" * 5000}, "nested too deeply"),
    ],
)
def test_a_mistake_is_refused(parts: dict[str, str], message: str) -> None:
    """A wrong part is refused with where it stands and what is allowed."""
    with pytest.raises(SpecError) as caught:
        beta(**parts)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "7", "~"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    """An empty file or a bare value is a mistake, not a crash."""
    with pytest.raises(SpecError, match=r"a\.yaml"):
        parse_spec(text, "a.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file and one that isn't UTF-8 give a SpecError with the path."""
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"bandit: \xe9")
    for path in (tmp_path / "nowhere.yaml", latin):
        with pytest.raises(SpecError, match=path.name):
            load_spec(path)


def test_a_file_is_read(tmp_path: Path) -> None:
    """A file gives the same spec as its text."""
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    assert load_spec(path) == parse_spec(GOOD, "elsewhere")


def test_the_example_in_the_docs_is_a_spec() -> None:
    """The complete file in the module's docstring is accepted."""
    from bandstand.schemas import spec as module

    lines = str(module.__doc__).split("::\n", 1)[1].split("\nA policy")[0]
    assert parse_spec(lines, "docstring").bandit == "homepage"


def test_the_page_of_rewards_has_a_spec() -> None:
    """The file in docs/rewards.md is accepted, and has every key that may stand under reward."""
    text = Path("docs/rewards.md").read_text().split("```yaml\n")[1].split("```")[0]
    given = parse_spec(text, "docs/rewards.md").reward
    assert given.cost is not None
    assert given.keep_probability is not None
    for model in (given, given.plus[0], given.cost, given.keep_probability):
        assert model.model_fields_set == set(type(model).model_fields)


def test_hash_ignores_layout_and_order_of_keys() -> None:
    """What is written in another order or style is the same spec."""
    spec = parse_spec(GOOD, "a")
    data = json.loads(spec.canonical())
    backwards = json.dumps(dict(reversed(data.items())), indent=3)
    again = parse_spec(backwards, "b")
    assert again.hash == spec.hash
    assert (again, hash(again)) == (spec, hash(spec))
    assert again != again.model_copy(update={"floor": 0.0625})
    assert again != spec.hash
    assert Spec.from_canonical(spec.canonical()).hash == spec.hash


def test_known_hashes() -> None:
    """Hashes are stored in topics, so they must never change for the same spec."""
    spec = parse_spec(GOOD, "a")
    assert spec.hash == "5e89bc3f4a57378550d87a2acdd3a0abb395eb54b144c74051d04ef6eaac0057"
    assert spec.features_hash == "83b21f38a1808898"


def test_features_hash_depends_on_the_features_only() -> None:
    """Another policy or reward keeps it; another order, range or vocabulary doesn't."""
    spec = parse_spec(GOOD, "a")
    same = [GOOD.replace("click", "buy"), GOOD.replace("0.5", "2"), GOOD.replace("no, yes", "n")]
    other = [
        GOOD.replace("18", "17"),
        GOOD.replace("[ch, no]", "[no, ch]"),
        GOOD.replace("age", "a"),
    ]
    assert {parse_spec(text, "a").features_hash for text in same} == {spec.features_hash}
    assert len({parse_spec(text, "a").features_hash for text in other} | {spec.features_hash}) == 4


@pytest.mark.parametrize("text", ["{", "{}", '{"bandit": "a", "new_key": 1}'])
def test_canonical_text_that_is_no_spec_is_refused(text: str) -> None:
    """A spec from a newer version or a damaged one gives a SpecError."""
    with pytest.raises(SpecError, match="canonical spec"):
        Spec.from_canonical(text)


words = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="|=#*"), min_size=1, max_size=8
).filter(lambda word: word != "intercept")
numbers = st.floats(-1e300, 1e300).filter(lambda number: abs(number) > 1e-300 or number == 0)


@settings(deadline=None)
@given(
    actions=st.lists(words, min_size=1, max_size=5, unique=True),
    names=st.lists(words, max_size=3, unique=True),
    low=numbers,
    span=st.floats(1e-3, 1e3),
)
def test_canonical_text_round_trips(
    actions: list[str], names: list[str], low: float, span: float
) -> None:
    """Any spec comes back equal, with equal hashes, from JSON and through YAML."""
    features = [{"name": n, "kind": "hashed", "buckets": 4} for n in names]
    high = low + max(span, abs(low))
    reward = {"name": "r", "low": low, "high": high, "default": low}
    spec = Spec.model_validate(
        {
            "bandit": "b",
            "actions": actions,
            "features": features,
            "policy": {"name": "linear_thompson"},
            "reward": reward,
        }
    )
    back = Spec.from_canonical(spec.canonical())
    assert (back, back.hash, back.features_hash) == (spec, spec.hash, spec.features_hash)
    assert parse_spec(spec.canonical(), "json").hash == spec.hash
