"""States of the random generators as plain data."""
import math
import random
from typing import Dict

import numpy as np
import torch

# Words of a Mersenne twister: Python keeps its position as one more word.
TWISTER_WORDS = 624
# Python keeps a normal deviate for the next call, or None.
NO_DEVIATE = math.nan


def generator_states() -> Dict[str, torch.Tensor]:
    """States of Python's, numpy's, torch's and the current accelerator's generators, as tensors."""
    _, python_words, python_gauss = random.getstate()
    _, numpy_words, position, has_gauss, gauss = np.random.get_state()
    states = dict(
        python=torch.tensor(python_words, dtype=torch.int64),
        python_gauss=torch.tensor(NO_DEVIATE if python_gauss is None else python_gauss,
                                  dtype=torch.float64),
        numpy=torch.tensor([*map(int, numpy_words), position, has_gauss], dtype=torch.int64),
        numpy_gauss=torch.tensor(gauss, dtype=torch.float64),
        torch=torch.get_rng_state())
    if torch.cuda.is_available():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def set_generator_states(states: Dict[str, torch.Tensor]) -> None:
    """Set the generators to states that :func:`generator_states` returned."""
    python_gauss = states['python_gauss'].item()
    random.setstate((3, tuple(states['python'].tolist()),
                     None if math.isnan(python_gauss) else python_gauss))
    words = states['numpy'].tolist()
    np.random.set_state(('MT19937', np.array(words[:TWISTER_WORDS], dtype=np.uint32),
                         words[TWISTER_WORDS], words[TWISTER_WORDS + 1],
                         states['numpy_gauss'].item()))
    torch.set_rng_state(states['torch'].cpu())
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())
