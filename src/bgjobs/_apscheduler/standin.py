"""Standing in for one method of somebody else's object, for as long as a facade is warm."""

from __future__ import annotations

from typing import Any, Self


class StandIn:
    """Stands in for a method of one object; its class, and other objects, stay as they are.

    Attributes:
        before: The method itself.
        owner: The object.
    """

    def __init__(self, owner: Any, name: str) -> None:
        self.owner = owner
        self.before = getattr(owner, name)
        self._name = name
        self._was_set = name in vars(owner)  # on the object, by somebody else
        self._users: set[object] = set()

    @classmethod
    def put(cls, owner: Any, name: str, user: object) -> Self:
        """Stand in there for `user`, too; one stands in for all of them."""
        there = vars(owner).get(name)
        if not isinstance(there, cls):
            there = cls(owner, name)
            setattr(owner, name, there)
        there._users.add(user)
        return there

    def release(self, user: object) -> None:
        """Give the method back when the last user is gone."""
        self._users.discard(user)
        if not self._users and vars(self.owner).get(self._name) is self:
            delattr(self.owner, self._name)
            if self._was_set:
                setattr(self.owner, self._name, self.before)
