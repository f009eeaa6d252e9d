"""Version of the package; ``setup.py`` and ``mim`` read this file without importing the package."""
__version__ = '0.1.0'
