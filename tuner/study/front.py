"""Which of several points are best where several things count: those that no other point is better than in everything.

Points are tuples of numbers, less is better in each. Plain arithmetic: there are as many points as a study has trials.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Point = Sequence[float]


def dominates(one: Point, other: Point) -> bool:
    """Whether a point is nowhere worse than another one, and somewhere better."""
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def front_ranks(points: Sequence[Point]) -> list[int]:
    """For each point its front: 0 if nothing dominates it, 1 if only points of front 0 do, and so on.

    Source: Deb et al. 2002, A fast and elitist multiobjective genetic algorithm: NSGA-II (non-dominated sorting).
    """
    ranks = [-1] * len(points)
    left = set(range(len(points)))
    rank = 0
    while left:
        best = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        for index in best:
            ranks[index] = rank
        left -= best
        rank += 1
    return ranks


def find_knee(points: Sequence[Point]) -> int | None:
    """The point of a front that is nearest to having the best of everything; None below three points.

    Each thing is scaled so that the front's best is 0 and its worst 1. The knee is the point whose worst of these is smallest, so an end
    of the front is none while any point lies between the ends; of equal ones the nearest to all zeros, then the first.
    """
    if len(points) < 3:
        return None
    scaled = _scaled(points)
    return min(range(len(points)), key=lambda index: (max(scaled[index]), math.hypot(*scaled[index])))


def spread(points: Sequence[Point], *, first: Sequence[int]) -> list[int]:
    """The points of a front in an order in which any number of the first ones stands for all.

    Args:
        points: The front.
        first: Those that come first; then always the one that is farthest from all before it.
    """
    scaled = _scaled(points)
    order = list(dict.fromkeys(first))
    while len(order) < len(points):
        rest = [index for index in range(len(points)) if index not in order]
        order.append(
            max(rest, key=lambda index: min((math.dist(scaled[index], scaled[one]) for one in order), default=0.0))
        )
    return order


def _scaled(points: Sequence[Point]) -> list[tuple[float, ...]]:
    ends = [(min(column), max(column)) for column in zip(*points, strict=True)]
    return [
        tuple(
            (value - low) / (high - low) if high > low else 0.0 for value, (low, high) in zip(point, ends, strict=True)
        )
        for point in points
    ]
