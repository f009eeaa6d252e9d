"""What a user chooses among, where the code that acts on the choice is slow to import."""

CHECKS = ('decode', 'header', 'none')
"""How images are checked when they are packed."""

ON_ERROR = ('stop', 'skip')
"""What packing does about an image that cannot be used."""
