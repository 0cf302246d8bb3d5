"""Count the FLOPs of what lies around the part of a network that was read, as a detector's heads."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoslim_cli.network.traced_part import given_to, part_of, with_outputs

Shape = tuple[int, ...]


def flops_around(network: nn.Module, part: str, *inputs: Shape) -> int:
    """Return the multiply-adds of one image of random pixels in eval mode, less those of the part.

    `inputs` are the shapes that the network takes, without the batch. A count, not a closed form: heads that look at
    what an earlier one found do as much work as it found.
    """
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            images = tuple(torch.rand(1, *shape) for shape in inputs)
            outputs = part_of(network, part)(*given_to(network, part, *images))
            with FlopCounterMode(display=False) as counter:
                with_outputs(network, part, outputs, *images)
    finally:
        network.train(was_training)
    return int(counter.get_total_flops()) // 2  # it counts a multiply-add as two
