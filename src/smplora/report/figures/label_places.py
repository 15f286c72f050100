"""Places labels beside points so that nothing lies on anything else; pure geometry in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

ANGLES = [math.radians(a) for a in (0, 25, 335, 155, 205, 180, 45, 315, 135, 225, 90, 270, 70, 110, 250, 290)]
DISTANCES = (10, 16, 24, 34, 46, 60, 78, 100)
SWEEPS = 4
ON_A_LABEL = 2000.0  # two labels on each other cannot be read, whatever else that would save


@dataclass(frozen=True)
class Box:
    """An upright rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """Area shared with ``other``."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def distance(self, point: tuple[float, float]) -> float:
        """From the nearest edge to ``point``; 0 inside."""
        x, y = point
        return math.hypot(max(self.left - x, 0.0, x - self.right), max(self.bottom - y, 0.0, y - self.top))

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.top - self.bottom)


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    obstacles: Sequence[Box],
    within: Box,
) -> list[Box]:
    """A box of each size near its point: inside ``within``, off the other boxes and, where it can be, the obstacles.

    Greedy, then a few sweeps in which every label moves to its best place given all the others.
    """
    candidates = [
        [_beside(point, size, angle, distance) for distance, angle in product(DISTANCES, ANGLES)]
        for point, size in zip(points, sizes, strict=True)
    ]
    fixed = [
        [_cost(box, own, points, obstacles, within) for box in boxes]
        for own, boxes in zip(points, candidates, strict=True)
    ]
    chosen: dict[int, Box] = {}
    for _ in range(SWEEPS):
        for label, boxes in enumerate(candidates):
            others = [box for other, box in chosen.items() if other != label]
            costs = [
                cost + sum(ON_A_LABEL + 30 * shared for other in others if (shared := box.overlap(other)))
                for box, cost in zip(boxes, fixed[label], strict=True)
            ]
            chosen[label] = boxes[costs.index(min(costs))]
    return [chosen[label] for label in range(len(points))]


def _cost(
    box: Box, own: tuple[float, float], points: Sequence[tuple[float, float]], obstacles: Sequence[Box], within: Box
) -> float:
    """Weights found by looking: leaving the axes is worst, then seeming another point's, lying on things, distance."""
    away = box.distance(own)
    taken = sum(box.distance(point) < away + 4 for point in points if point != own)
    covered = sum(box.overlap(obstacle) for obstacle in obstacles)
    return 20 * (box.area - box.overlap(within)) + 2 * covered + 3 * away + 120 * taken


def _beside(point: tuple[float, float], size: tuple[float, float], angle: float, distance: float) -> Box:
    """The box whose edge is ``distance`` away from the point in the direction ``angle``."""
    (x, y), (width, height), dx, dy = point, size, math.cos(angle), math.sin(angle)
    centre_x, centre_y = x + dx * (distance + width / 2), y + dy * (distance + height / 2)
    return Box(centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2)
