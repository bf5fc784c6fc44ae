"""Policies against made-up or recorded worlds, through the cores that serve and learn."""
