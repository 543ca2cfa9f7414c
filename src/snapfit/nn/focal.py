"""Losses that count less what is answered right already: focal loss, of one label or many, and asymmetric loss.

All are written in logarithms of probabilities, so that neither the loss nor its gradient overflows or becomes a NaN,
however large the logits; with exponents of 0 they are cross-entropy.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Focus:
    """How a loss looks away from what is easy.

    held: the exponent for a label that holds, or for the right one of several. absent: for a label that does not hold.
    margin: labels that do not hold count nothing up to this score, and beyond it from there on.
    Focal loss (Lin et al. 2017) has equal exponents and no margin; asymmetric loss (Ridnik et al. 2021) is for many
    labels, of which most do not hold: absent > held.
    """

    held: float
    absent: float
    margin: float = 0.0


def focal_rows(logits: Tensor, shares: Tensor, gamma: float) -> Tensor:
    """Focal loss of each row, float [rows]: the sum over classes of share * (1 - p) ** gamma * -log p.

    logits: float32 [rows, classes], two or more. shares: of the target, float32 of the same shape; for a label that is
    sure 1 at one class, for which it is (1 - p) ** gamma * -log p of that class (Lin et al. 2017, equation 4).
    """
    log_p = logits.log_softmax(-1)
    top = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, logits.argmax(-1, keepdim=True), True)
    # log(1 - p): of the likeliest class from the others' logits, for 1 - p may round to 0; others have at most 1/2.
    others = logits.masked_fill(top, -torch.inf).logsumexp(-1, keepdim=True) - logits.logsumexp(-1, keepdim=True)
    log_rest = torch.where(top, others, torch.log1p(-log_p.exp().masked_fill(top, 0.0)))
    return (shares * (gamma * log_rest).exp() * -log_p).sum(-1)


def focal_cells(logits: Tensor, focus: Focus) -> tuple[Tensor, Tensor]:
    """What each label costs where it holds, and where it does not: two float tensors of the logits' shape.

    With p the label's score: (1 - p) ** held * -log p, and q ** absent * -log(1 - q) with q = max(p - margin, 0)
    (Ridnik et al. 2021, equations 6 and 7, where held, absent and margin are gamma+, gamma- and m).
    """
    log_p, log_rest = F.logsigmoid(logits), F.logsigmoid(-logits)
    held = (focus.held * log_rest).exp() * -log_p
    if focus.margin == 0.0:
        return held, (focus.absent * log_p).exp() * -log_rest
    q = torch.sigmoid(logits) - focus.margin
    beyond = q > 0.0
    safe = torch.where(beyond, q, 1.0)  # so that no gradient is infinite where the loss is flat
    rest = torch.where(beyond, torch.sigmoid(-logits) + focus.margin, 1.0)  # 1 - q, at least the margin
    return held, torch.where(beyond, safe.pow(focus.absent) * -rest.log(), 0.0)
