"""The ``alexnet`` command: one short module a verb; ``view`` alone draws.

Importing it loads neither jax nor any other large library: every verb imports what it
needs in its body, so that ``alexnet --help`` answers at once.
"""
