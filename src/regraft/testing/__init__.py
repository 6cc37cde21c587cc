"""Tiny sources and data for tests, of regraft itself and of what others build on it; the contract of a source."""

from regraft.testing.contract import check_scheme, check_source
from regraft.testing.sources import TINY_ARCH, tiny_images, tiny_net, tiny_source
from regraft.testing.texts import TINY_TEXT_ARCH, tiny_text_net, tiny_text_source, tiny_texts

__all__ = [
    "TINY_ARCH",
    "TINY_TEXT_ARCH",
    "check_scheme",
    "check_source",
    "tiny_images",
    "tiny_net",
    "tiny_source",
    "tiny_text_net",
    "tiny_text_source",
    "tiny_texts",
]
