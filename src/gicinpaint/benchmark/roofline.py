"""How near each layer comes to what the machine can do: its arithmetic and its traffic against measured peaks."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gicinpaint.attention import ContextualAttention, FactorizedAttention
from gicinpaint.benchmark.cases import Figure, check_parts, floating_point
from gicinpaint.checks import check_multiple
from gicinpaint.masks import CenterMask
from gicinpaint.models.generator import Generator
from gicinpaint.models.layers import Convolution, Upsample

PARTS = ("forward", "backward")
_MATRIX = 2048  # rows and columns of the product that shows the peak of arithmetic
_COPIED = 1 << 28  # bytes of the copy that shows the peak of memory, beyond every cache


@dataclass
class RooflineBenchmark:
    """Time every convolution and the attention of a generator alone, with the sizes that they have within it.

    A layer can be as fast as the machine's arithmetic or its memory allows, whichever is slower for its operations and
    bytes (the roofline). Peaks are measured first: a matrix product and a copy. Operations are counted by PyTorch from
    the shapes, two for each multiplication with its addition; bytes are those of inputs, weights and outputs, once.
    A single processor thread is timed by processor time, which other programs disturb least.

    Raises:
        ValueError: If a part, the size or the type is wrong.
    """

    parts: Sequence[str] = PARTS  # backward: to input and weights
    size: int = 256  # height and width of the image in pixels, a multiple of 8
    batch_size: int = 1
    dtype: str = "float32"  # of weights and features, by torch's name
    width: int = 32  # channels of the generator at full size
    threads: int = 2  # of the processor
    device: str = "cpu"  # or "cuda"

    def __post_init__(self) -> None:
        check_parts(self.parts, PARTS)
        check_multiple(self.size, self.size, 8, "size")
        self._dtype = floating_point(self.dtype)

    def figures(self, rounds: int) -> Iterator[Figure]:
        """Return both peaks, then each layer's rate of arithmetic, the best of several rounds."""
        torch.set_num_threads(self.threads)
        operations, bytes_per_second = self._peaks(rounds)
        yield Figure("peaks", f"matrix product of {_MATRIX} x {_MATRIX}, {self.dtype}", operations / 1e9, "GFLOP/s")
        yield Figure("peaks", f"copy of {_COPIED / 1e6:.0f} MB, read and written", bytes_per_second / 1e9, "GB/s")
        for part in self.parts:
            total_seconds = least_seconds = 0.0
            for name, layer, x in self._layers():
                count, traffic = self._operations(layer, x, part == "backward"), self._traffic(layer, x)
                if part == "backward":
                    count -= self._operations(layer, x, backward=False)
                    traffic *= 2  # both gradients are written, both factors read
                seconds = self._seconds(self._step(layer, x, part == "backward"), rounds)
                least = max(count / operations, traffic / bytes_per_second)
                bound = "arithmetic" if count / operations >= traffic / bytes_per_second else "memory"
                note = f"{count / 1e9:.4g} GFLOP, {traffic / 1e6:.4g} MB, {1000 * seconds:.4g} ms"
                note += f", {least / seconds:.0%} of the roof ({bound})"
                yield Figure(part, f"{name}, {part}", count / seconds / 1e9, "GFLOP/s", note=note)
                total_seconds += seconds
                least_seconds += least
            note = f"{1000 * total_seconds:.0f} ms, {1000 * least_seconds:.0f} ms at the roof"
            yield Figure(part, f"all layers, {part}", 100 * least_seconds / total_seconds, "%", note=note)

    def _peaks(self, rounds: int) -> tuple[float, float]:
        """Return operations per second of a matrix product, and bytes per second of a copy."""
        a, b = torch.randn(2, _MATRIX, _MATRIX, device=self.device).to(self._dtype)
        source = torch.zeros(_COPIED // 4, device=self.device)
        target = torch.empty_like(source)
        product = self._seconds(lambda: a @ b, rounds)
        return 2 * _MATRIX**3 / product, 2 * _COPIED / self._seconds(lambda: target.copy_(source), rounds)

    def _layers(self) -> Iterator[tuple[str, nn.Module, Tensor]]:
        """Return each convolution and the attention once, by name, with an input of the size it gets there."""
        generator = Generator(self.width).to(self.device, self._dtype)
        shapes: dict[str, torch.Size] = {}

        def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            return lambda _, inputs: shapes.update({name: inputs[0].shape})

        timed = (Convolution, Upsample, ContextualAttention)
        kinds = {name: layer for name, layer in generator.named_modules() if isinstance(layer, timed)}
        handles = [layer.register_forward_pre_hook(note(name)) for name, layer in kinds.items()]
        image = torch.zeros(self.batch_size, 3, self.size, self.size, device=self.device, dtype=self._dtype)
        mask, _ = CenterMask(self.size // 2)(self.batch_size, self.size, self.size, device=self.device)
        with torch.no_grad():
            generator(image, mask.to(self._dtype))
        for handle in handles:
            handle.remove()
        for name, layer in ((n, m) for n, m in kinds.items() if n in shapes):
            yield name, layer, torch.randn(shapes[name], device=self.device).to(self._dtype)

    def _step(self, layer: nn.Module, x: Tensor, backward: bool) -> Callable[[], object]:
        """Return a forward pass, or a backward pass through one that has taken place."""
        if not backward:
            return torch.no_grad()(lambda: layer(x))
        x = x.detach().requires_grad_()
        output = layer(x)
        weight = torch.randn_like(output)

        def run() -> None:
            x.grad = None
            layer.zero_grad()
            output.backward(weight, retain_graph=True)

        return run

    def _operations(self, layer: nn.Module, x: Tensor, backward: bool) -> int:
        """Return what PyTorch counts, backward with the forward pass; of the attention that of its factorized form."""
        if isinstance(layer, ContextualAttention):
            layer = ContextualAttention(layer.patch_size, layer.rate, backend=FactorizedAttention())
        with FlopCounterMode(display=False) as counter:
            output = layer(x.detach().requires_grad_())
            if backward:
                output.sum().backward()
        return counter.get_total_flops()

    def _traffic(self, layer: nn.Module, x: Tensor) -> int:
        with torch.no_grad():
            output = layer(x)
        return sum(x.numel() * x.element_size() for x in (x, output, *layer.parameters()))

    def _seconds(self, step: Callable[[], object], rounds: int) -> float:
        """Return the shortest time of a step, after one that warms up."""
        clock = time.process_time if self.device == "cpu" and self.threads == 1 else time.perf_counter
        found = []
        for _ in range(rounds + 1):
            start = clock()
            step()
            if self.device == "cuda":
                torch.cuda.synchronize()
            found.append(clock() - start)
        return min(found[1:])
