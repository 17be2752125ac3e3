"""The columns of the table of operations, and what may stand in them."""

from __future__ import annotations

from enum import Enum, Flag, auto
from typing import NamedTuple


class Side(Enum):
    """The part that a rank takes in an operation; the value is how documentation says it."""

    COMPUTES = "the rank alone"
    SENDS = "sends to `peer`"
    RECEIVES = "receives from `peer`"
    SERVES = "serves one of `group`"
    MEETS = "all of `group`"


class Payload(Enum):
    """The tensors that a rank gives to a transfer and gets of it; `nbytes` counts the larger."""

    NOTHING = "nothing"
    WHOLE = "one tensor"
    IN_PLACE = "one tensor, into itself"
    GATHERED = "a part, for the whole"
    SCATTERED = "the whole, for a part"
    SWAPPED = "a tensor, for another one as large"


class Formula(Flag):
    """The formulas of what operations take; an operation takes the sum of one or more of them.

    Passes are counted in `simulator.engine.layer_work`, messages in
    `simulator.cluster.communication_costs`, collectives in
    `simulator.cluster.collective_algorithms`.
    """

    FORWARD = auto()
    INPUT_GRADIENT = auto()
    WEIGHT_GRADIENT = auto()
    NORM = auto()
    UPDATE = auto()
    MIXING = auto()
    COPYING = auto()
    OUTER_UPDATE = auto()
    ENCODING = auto()
    DECODING = auto()
    MESSAGE = auto()
    SCATTERING = auto()
    GATHERING = auto()
    CHAINING = auto()
    TRANSPOSING = auto()


class Look(NamedTuple):
    """The way an operation is drawn; its colours are brought into the range `luminance`."""

    label: str
    luminance: tuple[float, float]
    hatch: str = ""
    coloured: bool = False
