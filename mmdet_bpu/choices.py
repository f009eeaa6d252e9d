"""What a user chooses among, where the code that acts on the choice is slow to import."""

CHECKS = ('decode', 'header', 'none')
"""How images are checked when they are packed."""

ON_ERROR = ('stop', 'skip')
"""What packing does about an image that cannot be used."""

KERNELS = ('fast', 'reference')
"""How integers are computed, by compiled loops or by the readable contract: the same integers."""
