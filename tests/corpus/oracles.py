"""Facts about a scene, computed from the boxes of its things alone."""

from __future__ import annotations

from corpus.drawn.cast import Play
from corpus.drawn.layout import Placed

THIRDS = {"left": 0, "middle": 1, "right": 2, "top": 0, "bottom": 2}


def centre(thing: Placed) -> tuple[float, float]:
    left, top, right, bottom = thing.box
    return (left + right) / 2, (top + bottom) / 2


def lies(play: Play, thing: Placed, place: str) -> bool:
    """Return whether the centre lies in the named part of the picture, by thirds (or halves)."""
    x, y = centre(thing)
    across, down = x / play.scene.width, y / play.scene.height
    words = place.split()
    fits = {
        "left": across < 0.5,
        "right": across > 0.5,
        "top": down < 0.5,
        "bottom": down > 0.5,
        "middle": 0.25 < across < 0.75 and 0.25 < down < 0.75,
    }
    return all(fits[word] for word in words)


def stands(relation: str, one: Placed, two: Placed) -> bool:
    """Return whether one thing's box lies wholly or mostly in that direction of another's."""
    (x, y), (u, v) = centre(one), centre(two)
    return {"to the left of": x < u, "to the right of": x > u, "above": y < v, "below": y > v}[relation]
