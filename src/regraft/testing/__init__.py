"""Tiny sources and pictures for tests, of regraft itself and of what others build on it."""

from regraft.testing.sources import TINY_ARCH, tiny_images, tiny_net, tiny_source

__all__ = ["TINY_ARCH", "tiny_images", "tiny_net", "tiny_source"]
