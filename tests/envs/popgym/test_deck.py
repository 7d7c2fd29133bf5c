"""The pack of cards, value by value, against POPGym's."""

import numpy as np
import pytest

from minis5.envs.popgym.deck import KINDS, card_value


def test_cards_of_the_pack():
    deck = pytest.importorskip("popgym.core.deck").Deck(3)
    for name, kind in KINDS.items():
        np.testing.assert_array_equal(
            [card_value(i, kind) for i in range(3 * 52)], getattr(deck, name + "_idx")
        )
