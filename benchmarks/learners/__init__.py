"""Learning and deciding beside the bandit libraries of Python."""
