"""The gradient penalty of Wasserstein critics, taken in the hole."""

from collections.abc import Callable

import torch
from torch import Tensor

from gicinpaint.attention.reference import without_autocast
from gicinpaint.checks import check_like, check_mask


def gradient_norm(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    mask: Tensor,
    alpha: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return the norm of the critic's gradient in each image's hole, between real and completed images.

    Computed in float32 at least, whatever autocast says: in bfloat16 it is some percent off, in float16 it underflows.

    Args:
        critic: Maps images to one score each. One that knows the gradient of its scores to the images, a method
            `input_gradient` such as `Critic` has, is asked for it; any other is differentiated twice.
        real: Ground truth, as the critic sees it.
        fake: Completed images, as the critic sees them.
        mask: Hole mask; only the gradient inside counts.
        alpha: Place of each image between real (0) and fake (1); drawn uniformly if not given.
        generator: Source of that draw.

    Shape:
        - real, fake: (B, C, H, W), [-1, 1]
        - mask: (B or 1, 1, H, W), {0, 1}
        - alpha: (B, 1, 1, 1), [0, 1]
        - returned: (B,)

    Raises:
        ValueError: If the shapes differ or the mask is not binary.

    Source:
        Yu et al. 2018, section 3.2, and Gulrajani et al. 2017. Differs from the released code: the norm of
        a zero gradient has the derivative 0, not NaN.
    """
    check_like(fake, real, "fake", "real")
    check_mask(mask, real)
    b = real.shape[0]
    if alpha is None:
        device = real.device if generator is None else generator.device
        alpha = torch.rand(b, 1, 1, 1, generator=generator, device=device).to(real.device)
    elif alpha.shape != (b, 1, 1, 1):
        raise ValueError(f"alpha must be ({b}, 1, 1, 1), got {tuple(alpha.shape)}; pass one number per image")
    dtype = torch.promote_types(real.dtype, torch.float32)
    with torch.enable_grad(), without_autocast(real):
        real, fake = real.detach().to(dtype), fake.detach().to(dtype)
        gradient = _input_gradient(critic, real + alpha.to(dtype) * (fake - real))
        return torch.linalg.vector_norm((gradient * mask.to(dtype)).flatten(1), dim=1)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    mask: Tensor,
    alpha: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return how far the critic's gradient in the hole is from norm 1; arguments as `gradient_norm`."""
    with torch.enable_grad():
        return penalty(gradient_norm(critic, real, fake, mask, alpha, generator=generator))


def penalty(norm: Tensor) -> Tensor:
    """Return the mean squared distance of gradient norms (B,) from 1, a scalar."""
    return (norm - 1).square().mean()


def _input_gradient(critic: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    own_method: Callable[[Tensor], Tensor] | None = getattr(critic, "input_gradient", None)
    if own_method is not None:
        return own_method(image)
    image = image.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(image).sum(), image, create_graph=True)
    return gradient
