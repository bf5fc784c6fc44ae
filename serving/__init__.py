"""Decisions in a service, from live snapshots."""
