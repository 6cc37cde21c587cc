"""What the preparations of all modalities have in common: a spec, a view, and what follows from these two."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Generic, TypeVar

from regraft.digest import digest_json
from regraft.spec import Spec

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class FromSpec(Generic[S]):
    """The facts of a preparation that its spec says already, and the digest under which its rows are cached.

    A subclass names itself and counts its versions. Raise `version` when the same example and spec give another row:
    it renames every cached feature. Raise `views_version` when they do so in views above 0 alone.

    Args:
        spec: what the network expects.
        view: 0 plain, k > 0 the k-th augmented version.
    """

    spec: S
    view: int = 0

    name: ClassVar[str]
    version: ClassVar[int] = 1
    views_version: ClassVar[int] = 1

    @property
    def ragged(self) -> bool:
        """Whether rows differ in length."""
        return self.spec.ragged

    @property
    def size(self) -> tuple[int, ...]:
        """Shape of one row; of the longest one, if they are ragged."""
        return self.spec.size

    @property
    def digest(self) -> str:
        """Changes when anything changes that the network's input depends on."""
        return self._digest

    @cached_property  # each tap asks for it, and vocabularies are long
    def _digest(self) -> str:
        facts = {self.name: self.version, "spec": self.spec.to_dict(), "view": self.view}
        return digest_json(facts | ({"views": self.views_version} if self.view else {}))
