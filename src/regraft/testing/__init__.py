"""Tiny sources and pictures for tests, of regraft itself and of what others build on it; the contract of a source."""

from regraft.testing.contract import check_scheme, check_source
from regraft.testing.sources import TINY_ARCH, tiny_images, tiny_net, tiny_source

__all__ = ["TINY_ARCH", "check_scheme", "check_source", "tiny_images", "tiny_net", "tiny_source"]
