"""Lets ``python -m alexnet_cli`` stand for ``alexnet``."""

from alexnet_cli.main import main

main()
