"""The paper's experiments: many runs, one table.

``runs`` carries out many runs in one folder. ``ablate`` takes the network's parts away
one by one.
"""
