"""A cursor kept in a file, so that a consumer goes on where it was, whatever ended it.

It is written when the consumer asks for the next event: a crash repeats the last one, it never loses one.
"""

from __future__ import annotations

import os
import time
from collections import deque

from waitbus.client.core import CaughtUp, SubscriptionState
from waitbus.client.since import since_ulid
from waitbus.event import WaitbusError, one_line
from waitbus.predicate import Predicate, all_of
from waitbus.private import ensure_private_dir
from waitbus.ulid import is_ulid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from waitbus.client.core import Item, Truncated
    from waitbus.event import Event
    from waitbus.settings import Settings

_NAME_MAX = 64
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class BookmarkError(WaitbusError):
    """A bookmark that cannot be named, read or written."""


class Bookmark:
    """One cursor in one file (0600). One consumer at a time: two would take turns in overwriting it.

    A bare name lives in ``STATE/bookmarks``; anything with a slash is a path, whose directory must be there. After the
    cursor stands from when on history is still to be given (`SubscriptionState.history_from`), unless all of it is.
    """

    __slots__ = ("_saved", "history_from", "path")

    def __init__(self, settings: Settings, where: str | os.PathLike[str]) -> None:
        text = os.fspath(where)
        if "/" in text:
            self.path = os.path.abspath(text)
        else:
            if not text or len(text) > _NAME_MAX or text[0] == "." or not _NAME_CHARS.issuperset(text):
                raise BookmarkError(
                    f"{one_line(text, 40)!r} is no bookmark: write a name of letters, digits, '.', '_' and '-', "
                    "or a path with a slash"
                )
            ensure_private_dir(settings.state_dir)
            directory = os.path.join(settings.state_dir, "bookmarks")
            ensure_private_dir(directory)
            self.path = os.path.join(directory, text)
        self._saved: tuple[str, float] | None = None
        self.history_from = 0.0

    def load(self) -> str | None:
        """The cursor, or None when there is no bookmark yet. Raises `BookmarkError` when the file holds no cursor."""
        try:
            with open(self.path, "rb") as file:
                text, *more = file.read(64).decode("ascii", "replace").split() or [""]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BookmarkError(f"cannot read the bookmark {self.path}: {error.strerror}") from None
        if not is_ulid(text):
            raise BookmarkError(f"{self.path} holds no event_id: remove it to begin anew")
        try:
            self.history_from = float(more[0]) if more else 0.0
        except ValueError:
            self.history_from = 0.0
        self._saved = text, self.history_from
        return text

    def save(self, cursor: str | None, history_from: float = 0.0) -> None:
        """Replace the file in one step. Nothing happens when it says this already."""
        if cursor is None or (cursor, history_from) == self._saved:
            return
        text = f"{cursor} {history_from:.0f}" if history_from else cursor
        new = f"{self.path}.new"
        try:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.write(fd, f"{text}\n".encode())
            finally:
                os.close(fd)
            os.replace(new, self.path)
        except OSError as error:
            raise BookmarkError(f"cannot write the bookmark {self.path}: {error.strerror}") from None
        self._saved = cursor, history_from


class Inbox:
    """What was read and not yet asked for; with a bookmark, the one that follows what was."""

    __slots__ = ("_bookmark", "_history_from", "_items", "_state", "taken")

    def __init__(self, state: SubscriptionState, bookmark: Bookmark | None) -> None:
        self._state = state
        self._bookmark = bookmark
        self._history_from = state.history_from
        self._items: deque[Item] = deque()
        # The last event that was given out.
        self.taken: str | None = None

    def begin(self) -> None:
        """The subscription stands: a new bookmark holds where it began."""
        self._save(self._state.began_at)

    def extend(self, items: Iterable[Item]) -> None:
        self._items.extend(items)

    def drain(self) -> list[Item]:
        items = list(self._items)
        self._items.clear()
        return items

    def take(self) -> Event | Truncated | None:
        """The next event, asked for because the one before is done with. None when more must be read first."""
        self._save(self.taken)
        while self._items:
            item = self._items.popleft()
            if not isinstance(item, CaughtUp):
                self.taken = item.event_id
                return item
            # All that was there has been given: what is imported or back-filled from now on is not news.
            self._history_from = float("inf")
        self._save(self._state.resume_at)
        return None

    def put_back(self, item: Event | Truncated) -> None:
        """What was taken last could not be given: it is the next one again, and the bookmark stays before it."""
        self._items.appendleft(item)
        self.taken = None

    def pass_by(self, item: Item) -> None:
        """An item is given out without having been here: it counts as taken last."""
        if isinstance(item, CaughtUp):
            self._history_from = float("inf")
        else:
            self.taken = item.event_id

    def done(self) -> None:
        """What was taken last is done with, and no other is asked for yet: the bookmark moves past it."""
        self._save(self.taken)

    def rewind(self, taken: str | None) -> None:
        """Forget what was read: the next connection brings again what came after `taken`."""
        self._items.clear()
        self.taken = taken
        self._state.rewind(taken or self._state.began_at)

    def _save(self, cursor: str | None) -> None:
        if self._bookmark is not None:
            self._bookmark.save(cursor, self._history_from)


def prepare(
    predicates: tuple[str | Predicate, ...],
    source: str | None,
    since: str | None,
    bookmark: str | os.PathLike[str] | None,
    settings: Settings,
) -> tuple[SubscriptionState, Inbox]:
    """What both faces make of the arguments they share."""
    kept = None if bookmark is None else Bookmark(settings, bookmark)
    now = time.time_ns()
    began = since_ulid(since, now)
    cursor = None if kept is None else kept.load()
    state = SubscriptionState(
        all_of(predicates, source),
        cursor or began,
        now % 1000 / 1000,
        history_from=None if kept is None or cursor is None else kept.history_from,
    )
    return state, Inbox(state, kept)
