"""``python -m bandstand``: the command line."""

from bandstand.cli import main

main()
