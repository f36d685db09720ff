"""What stands around each check: the same seed, one thread, gradients; and all of it as it was afterwards."""

import random

import numpy as np
import torch

from fgvc_cli.testing.tiny import isolated


def state():
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_num_threads()


def test_each_run_begins_alike_and_leaves_everything_as_it_was():
    seen = []

    def check():
        seen.append((torch.rand(()).item(), torch.is_grad_enabled(), torch.get_num_threads()))
        random.seed(5)
        np.random.seed(5)

    before = state()
    with torch.no_grad():
        isolated(check)()
        torch.rand(3)
        isolated(check)()
        assert not torch.is_grad_enabled()
    assert seen[0] == seen[1] and seen[0][1:] == (True, 1)
    torch.set_rng_state(torch.tensor(before[0], dtype=torch.uint8))
    assert state() == before
