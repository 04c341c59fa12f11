"""What strategies put into a model carries this mark, so that others know it from the pretrained layers."""

from __future__ import annotations

from torch import nn


class Inserted(nn.Module):
    """A module that a strategy inserted.

    Its layers are no targets of other strategies (:mod:`tuner.strategies.anatomy`). Its parameters are trained if they
    require gradients. Its persistent buffers are what it remembers from step to step, and are saved with the weights;
    what can be computed anew, such as a random projection, is registered with ``persistent=False``.
    """
