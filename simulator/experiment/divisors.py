"""What a message suggests in the place of a number that does not divide."""

from __future__ import annotations

import math


def nearest_divisor(number: int, wanted: int, least: int = 1) -> int:
    """The divisor of `number`, `least` or more, that is nearest to `wanted`; of two the smaller.

    Raises:
        ValueError: there is none.
    """
    # 1 is wanted - 1 away, so nothing over twice that is nearer; large divisors come in pairs
    # with small ones.
    small = range(1, min(math.isqrt(number), 2 * max(wanted, least)) + 1)
    divisors = [n for low in small if number % low == 0 for n in (low, number // low)]
    return min((n for n in divisors if n >= least), key=lambda n: (abs(n - wanted), n))
