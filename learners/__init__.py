"""Learning without I/O: exact sums, posteriors, policies, snapshots."""
