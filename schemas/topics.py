"""Names and keys of every topic: who may find what where.

A lane is a set of topics that share one attribution window; its topics have equal partition counts
for good, so that partition p of one belongs with partition p of the others.

Examples
--------
>>> names = TopicNames("acme.")
>>> names.decisions("default")
'acme.default.decisions'
>>> names.snapshots
'acme.snapshots'
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "POSITION_KEY_PREFIX",
    "TICK_KEY",
    "TopicNames",
    "artifact_key",
    "pointer_key",
    "state_key",
]

TICK_KEY = b"bandstand.tick"
"""Key of every tick; no decision id may be equal to it."""

POSITION_KEY_PREFIX = b"position|"
"""First bytes of the key of a learner's partition record."""


@dataclass(frozen=True)
class TopicNames:
    """Topic names under one prefix.

    Parameters
    ----------
    prefix
        Put before every name, separator included; may be empty.
    """

    prefix: str

    def decisions(self, lane: str) -> str:
        """Topic of a lane's decisions."""
        return f"{self.prefix}{lane}.decisions"

    def rewards(self, lane: str) -> str:
        """Topic of a lane's rewards."""
        return f"{self.prefix}{lane}.rewards"

    def outcomes(self, lane: str) -> str:
        """Topic of a lane's outcomes."""
        return f"{self.prefix}{lane}.outcomes"

    @property
    def specs(self) -> str:
        """Topic of the bandits' specs: compacted, one partition."""
        return f"{self.prefix}specs"

    @property
    def learner_state(self) -> str:
        """Topic of the learners' sums and positions: compacted, written in transactions."""
        return f"{self.prefix}learner-state"

    @property
    def snapshots(self) -> str:
        """Topic of snapshots and of the pointers to the current ones: compacted."""
        return f"{self.prefix}snapshots"

    @property
    def dead_letters(self) -> str:
        """Topic of records that couldn't be used."""
        return f"{self.prefix}dead-letters"

    @property
    def clock(self) -> str:
        """Topic that gives the broker's time (LogAppendTime)."""
        return f"{self.prefix}clock"

    def lane(self, lane: str) -> tuple[str, str, str]:
        """Give the lane's decisions, rewards and outcomes topics."""
        return self.decisions(lane), self.rewards(lane), self.outcomes(lane)


def artifact_key(bandit: str, version: str) -> bytes:
    """Key of a snapshot's artifact record."""
    return f"{bandit}|{version}".encode()


def pointer_key(bandit: str) -> bytes:
    """Key of the record that names a bandit's current snapshot."""
    return bandit.encode()


def state_key(bandit: str, statistic: str, spec_hash: str, lane: str, partition: int) -> bytes:
    """Key of a statistic's record in ``learner-state``."""
    return f"{bandit}|{statistic}|{spec_hash}|{lane}|{partition}".encode()
