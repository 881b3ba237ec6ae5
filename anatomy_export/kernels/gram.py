"""Weighted mean and covariance of rows that arrive block by block; no row is kept for longer than a block."""

from dataclasses import dataclass

import torch

BLOCK_ROWS = 4096
PANEL_COLUMNS = 384


@dataclass(frozen=True)
class Moments:
    """First and second moments of n-dimensional rows, in float64.

    Attributes:
        count: rows with a weight that is not zero.
        weight: sum of the weights.
        mean: (n,).
        covariance: (n, n), centred, divided by `weight`.
    """

    count: int
    weight: float
    mean: torch.Tensor
    covariance: torch.Tensor


class GramAccumulator:
    """Sums of rows and of their outer products: products in the rows' dtype, block by block, sums in float64.

    Only panels on and right of the diagonal are computed and held: the rest is their mirror image.

    Rows are shifted by the mean of the first block, so that the covariance does not suffer where means are large.

    Args:
        block_rows: rows that are kept until so many have come: fewer and larger products, at the cost of their memory.
    """

    def __init__(self, block_rows: int = BLOCK_ROWS) -> None:
        self.count, self.weight, self.block_rows = 0, 0.0, block_rows
        self.shift: torch.Tensor | None = None
        self._panels: list[torch.Tensor] = []
        self._pending: list[tuple[torch.Tensor, torch.Tensor]] = []

    def add(self, rows: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        """Count `rows: (b, n)` with `weights: (b,)`, all one by default."""
        scale = rows.new_ones(len(rows)) if weights is None else weights.to(rows.dtype)
        self._pending.append((rows, scale))
        if sum(len(block) for block, _ in self._pending) >= self.block_rows:
            self._add_pending()

    def _add_pending(self) -> None:
        if not self._pending:
            return
        rows, scale = (torch.cat(parts) for parts in zip(*self._pending, strict=True))
        self._pending.clear()
        blocks = max(1, round(len(rows) / BLOCK_ROWS))
        for block, weights in zip(rows.tensor_split(blocks), scale.tensor_split(blocks), strict=True):
            if len(block):
                self._add_block_(block, weights)

    def _add_block_(self, block: torch.Tensor, scale: torch.Tensor) -> None:
        """Count one block, which is overwritten."""
        if self.shift is None:
            self.shift = block.mean(0)
            self.total = block.new_zeros(block.shape[1], dtype=torch.float64)
            self._panels = [
                block.new_zeros(min(PANEL_COLUMNS, block.shape[1] - start), block.shape[1] - start, dtype=torch.float64)
                for start in range(0, block.shape[1], PANEL_COLUMNS)
            ]
        self.count += int((scale != 0).sum())
        self.weight += float(scale.double().sum())
        block -= self.shift
        root = scale.sqrt()[:, None]
        block *= root
        self.total += (block * root).sum(0, dtype=torch.float64)
        start = 0
        for panel in self._panels:
            panel += block[:, start : start + len(panel)].T @ block[:, start:]
            start += len(panel)

    def moments(self) -> Moments:
        """The moments of all rows so far.

        Raises:
            ValueError: no row was added, or none with a weight.
        """
        self._add_pending()
        if self.shift is None or self.weight <= 0:
            raise ValueError("no rows with a positive weight were added")
        mean = self.total / self.weight
        covariance = torch.outer(mean, -mean)
        start = 0
        for panel in self._panels:
            rows = slice(start, start + len(panel))
            start += len(panel)
            right = panel[:, len(panel) :] / self.weight
            square = panel[:, : len(panel)].triu()
            covariance[rows, rows] += (square + square.triu(1).T) / self.weight
            covariance[rows, start:] += right
            covariance[start:, rows] += right.T
        return Moments(self.count, self.weight, mean + self.shift.double(), covariance)
