"""Squint: vision inference with fewer tokens when it must be quick. This package is what a user types and imports."""

from service.version import VERSION as __version__

__all__ = ["__version__"]
