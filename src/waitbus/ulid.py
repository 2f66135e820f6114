"""ULIDs: 48 bits of milliseconds and 80 random bits, written as 26 characters of Crockford's base 32.

They sort by time. Pure: the caller passes in the time and the randomness.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ULID_LENGTH = 26
ULID_MIN = "0" * ULID_LENGTH
_ENTROPY_BITS = 80
_BATCH_MASK = (1 << 20) - 1
_PAIRS = [a + b for a in CROCKFORD for b in CROCKFORD]
_CROCKFORD_SET = frozenset(CROCKFORD)


def is_ulid(text: object) -> bool:
    """Whether `text` has the form of a ULID: 26 characters of Crockford's upper-case base 32."""
    return isinstance(text, str) and len(text) == ULID_LENGTH and _CROCKFORD_SET.issuperset(text)


def encode_ulid(value: int) -> str:
    """Return a 128-bit number as a ULID."""
    pairs = _PAIRS  # two characters at a time, because every insert calls this
    return "".join([pairs[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def ulid_at(unix_ns: int) -> str:
    """Return the smallest ULID of the millisecond that contains `unix_ns`: the cursor for "from this time on"."""
    return encode_ulid(max(0, unix_ns // 1_000_000) << _ENTROPY_BITS)


def decode_ulid(ulid: str) -> int:
    """Return the number that a valid ULID, or its first characters, stands for."""
    value = 0
    for char in ulid:
        value = value << 5 | CROCKFORD.index(char)
    return value


def ulid_ms(ulid: str) -> int:
    """Return the time in a valid ULID, in milliseconds since the epoch."""
    return decode_ulid(ulid[:10])


class UlidFactory:
    """Makes ULIDs that are unique and ascending within one process, even if the clock stands still or is set back.

    `clock_ns` returns nanoseconds since the epoch, `entropy(n)` returns n random bytes. Not thread-safe.
    """

    __slots__ = ("_clock_ns", "_entropy", "_last")

    def __init__(self, clock_ns: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._clock_ns = clock_ns
        self._entropy = entropy
        self._last = 0

    def __call__(self) -> str:
        now_ms = self._clock_ns() // 1_000_000
        last = self._last
        if now_ms > last >> _ENTROPY_BITS:
            # The top random bit starts as 0, so that there is room to count up within a millisecond.
            last = now_ms << _ENTROPY_BITS | int.from_bytes(self._entropy(10), "big") >> 1
        else:
            last += 1
        self._last = last
        return encode_ulid(last)

    def batch(self, count: int) -> list[str]:
        """Return `count` ascending ULIDs. They share all but the last 20 bits, so this costs little more than one."""
        if count < 1:
            return []
        first = self()
        low = self._last & _BATCH_MASK
        if low + count > _BATCH_MASK:
            return [first, *[self() for _ in range(count - 1)]]
        self._last += count - 1
        head, pairs = first[:-4], _PAIRS
        return [head + pairs[n >> 10] + pairs[n & 1023] for n in range(low, low + count)]
