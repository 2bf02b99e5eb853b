"""The second paper's generator: the same two stages with gated convolutions, for holes of any shape."""

import torch
from torch import Tensor, nn

from gicinpaint.attention import ContextualAttention
from gicinpaint.checks import check_mask
from gicinpaint.models.compositing import composite
from gicinpaint.models.generator import CoarseNetwork, Completion, Family, RefinementNetwork
from gicinpaint.models.layers import Convolution
from gicinpaint.models.stored import StoredNetwork

_OPEN = 3.0  # bias of a gate at which it lets 95 % pass


class GatedConvolution(Convolution):
    """A convolution whose activated features are multiplied by a sigmoid gate, pixel by pixel.

    One kernel makes features and gates, so it has twice the output's channels; the features come first. Arguments,
    shapes and errors are those of `Convolution`.

    Source:
        Yu et al. 2019, "Free-form image inpainting with gated convolution", equation 3.
    """

    kernels_per_channel = 2

    @torch.no_grad()
    def start_open(self) -> None:
        """Draw the features' weights as a plain convolution's and let the gates start open."""
        half = self.out_channels // 2
        nn.init.xavier_uniform_(self.weight[:half])
        if self.bias is not None:
            self.bias[half:] = _OPEN

    def activate(self, x: Tensor) -> Tensor:
        """Return the gated features of the convolution's result."""
        half = x.shape[1] // 2
        gate = x[:, half:].sigmoid()
        return super().activate(x[:, :half]) * gate


GATED = Family(GatedConvolution, nn.Tanh)


class GatedGenerator(StoredNetwork):
    """The second paper's two-stage network, from a masked image to its completion.

    Args:
        width: Channels of the first kernel, features and gates together, a multiple of 4; the released value is 48.
        attention: Contextual attention of the second stage; None leaves the attention branch out.
        padding: "zeros", "mirror" for the released option SYMMETRIC, or "centered"; see `Convolution`.
        guided: Whether the first stage also sees a sketch of edges in the hole.
        residual: As for `Generator`; then gates start open too.
        open_gates: Whether gates start open and features as in a plain convolution. As released each gate halves what
            passes, so that a new network returns nearly nothing and its first stage learns slowly.

    Shape:
        - masked, mask, source, returned: as for `Generator`
        - sketch: (B or 1, 1, H, W), {0, 1}, 1 = edge; what lies outside the hole does not matter

    Raises:
        ValueError: If shapes, types or values differ from that, an offset or a source is given without attention, or a
            sketch to a network that is not guided.

    Source:
        Yu et al. 2019, section 3. Follows the released code where they part: the second stage does not see the mask.
        Differs from the released code: one mask per image, not per batch; `residual` and `open_gates`
        are ours.

    Example:
        >>> completion = GatedGenerator(width=4)(torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 16, 16))
        >>> completion.refined.shape
        torch.Size([1, 3, 16, 16])
    """

    def __init__(
        self,
        width: int = 48,
        attention: ContextualAttention | None = ContextualAttention(),  # noqa: B008  (no weights: safe to share)
        padding: str = "zeros",
        guided: bool = False,
        residual: bool = False,
        open_gates: bool = False,
    ) -> None:
        super().__init__(
            width=width, attention=attention, padding=padding, guided=guided, residual=residual, open_gates=open_gates
        )
        if width < 4 or width % 4:
            raise ValueError(f"width must be a positive multiple of 4, got {width}; the released value is 48")
        self.guided = guided
        self.coarse_network = CoarseNetwork(width // 2, padding, residual, int(guided), GATED)
        self.refinement_network = RefinementNetwork(width // 2, attention, padding, residual, False, GATED)
        if residual or open_gates:
            for layer in self.modules():
                if isinstance(layer, GatedConvolution):
                    layer.start_open()

    def forward(
        self,
        masked: Tensor,
        mask: Tensor,
        return_offset: bool = False,
        sketch: Tensor | None = None,
        source: Tensor | None = None,
    ) -> Completion:
        """Return both stages' outputs and, if asked for, the offset; no sketch is an empty one."""
        planes = self._sketch(masked, mask, sketch)
        coarse = self.coarse_network(masked, mask, *planes)
        refined, offset = self.refinement_network(composite(masked, coarse, mask), mask, return_offset, source)
        return Completion(coarse, refined, offset)

    def _sketch(self, masked: Tensor, mask: Tensor, sketch: Tensor | None) -> list[Tensor]:
        if not self.guided:
            if sketch is not None:
                raise ValueError("a sketch needs a guided generator, got guided=False; build one with guided=True")
            return []
        if sketch is None:
            return [torch.zeros_like(masked[:, :1])]
        check_mask(sketch, masked, "sketch")
        return [(sketch * mask).to(masked.dtype).expand(len(masked), -1, -1, -1)]
