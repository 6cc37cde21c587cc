"""Recordings: opening what nobody vouches for, and preparing it for a network.

In: encoded bytes. Out: a `Sound`, and from it the one row that an `AudioSpec` asks for.
Law: the same recording, spec, view and key give the same row.
"""

from regraft.data.audio.sound import SOUND_SUFFIXES, Quality, Sound, open_sound, quality
from regraft.data.audio.transform import AudioTransform
from regraft.data.audio.windows import WINDOWS, share_of_long

__all__ = ["SOUND_SUFFIXES", "WINDOWS", "AudioTransform", "Quality", "Sound", "open_sound", "quality", "share_of_long"]
