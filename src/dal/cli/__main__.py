"""`python -m dal.cli` is the `dal` command."""

from dal.cli import main

main()
