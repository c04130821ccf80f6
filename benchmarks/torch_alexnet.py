"""The peer: net 145 in PyTorch, as its users would write it. A worker of `steps.py`.

The same arithmetic as `code2012`: both towers as `groups=2`, response norms within a
tower, cnorm2, overlapping pools, the 2012 dropout rule, SGD with momentum and decay, a
rate of its own for biases. In its favour: pictures come as centred float32, already
padded to 227 pixels, so it neither cuts, mirrors nor colours them.

Reads a line, does a step, writes the seconds it took; at the end its peak memory.
Needs only torch: `python benchmarks/torch_alexnet.py --help`.
"""

import argparse
import json
import resource
import sys
import time

# Not among the requirements of this project.
# pyright: reportMissingImports=false
import torch
from torch import nn
from torch.nn import functional as F


def power(d: torch.Tensor) -> torch.Tensor:
    """Return d^-0.75: two square roots are cheaper than a power."""
    return torch.rsqrt(d * torch.sqrt(d))


class OwnNorm(nn.Module):
    """PyTorch's own module, a tower at a time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_contiguous():  # towers are neighbours in memory: no copy
            apart = x.reshape(2 * len(x), x.shape[1] // 2, *x.shape[2:])
            return self.norm(apart).reshape(x.shape)
        return torch.cat([self.norm(half) for half in x.chunk(2, 1)], 1)


class BandedNorm(nn.Module):
    """The sum over neighbouring maps as a product with a banded matrix."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        place = torch.arange(channels)
        near = (place[:, None] - place[None, :]).abs() <= 2
        same = place[:, None] // (channels // 2) == place[None, :] // (channels // 2)
        self.register_buffer("band", (near & same).float()[:, :, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * power(2.0 + 1e-4 / 5 * F.conv2d(x * x, self.band))


class SpatialNorm(nn.Module):
    """cnorm2: squares of the 5 x 5 pixels around, of the same map."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        d = 1.0 + 1e-3 * F.avg_pool2d(x * x, 5, stride=1, padding=2)
        return x * (d**-0.75 if self.own else power(d))


class Dropout2012(nn.Module):
    """Times a mask in training, times one half in testing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (torch.rand_like(x) < 0.5) if self.training else x * 0.5


def network(norm: str) -> nn.Sequential:
    across = OwnNorm if norm == "own" else BandedNorm
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4),
        across(96),
        nn.MaxPool2d(3, 2),
        nn.ReLU(),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(),
        across(256),
        SpatialNorm(norm == "own"),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.MaxPool2d(3, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(9216, 4096),
        nn.ReLU(),
        Dropout2012(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        Dropout2012(),
        nn.Linear(4096, 1000),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Net 145 in PyTorch: a worker of steps.py."
    )
    parser.add_argument("--mode", choices=("train", "forward"), default="train")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--steps", type=int, default=1, help="a turn")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--norm", choices=("own", "banded"), default="own")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("highest" if args.precision == "f32" else "high")
    cast = torch.autocast(device.type, torch.bfloat16, args.precision == "bf16")
    net = network(args.norm).to(device, memory_format=layout)
    net.train(args.mode == "train")
    run = torch.compile(net) if args.compile else net
    images = torch.randn(args.batch_size, 3, 227, 227)
    images = images.to(device, memory_format=layout)
    labels = torch.randint(0, 1000, (args.batch_size,), device=device)
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    rule = torch.optim.SGD(
        [
            {"params": weights, "lr": 0.001, "weight_decay": 0.0005},
            {"params": biases, "lr": 0.002},
        ],
        momentum=0.9,
        fused=True,
    )

    def train() -> None:
        rule.zero_grad(set_to_none=True)
        with cast:
            loss = F.cross_entropy(run(images), labels)
        loss.backward()
        rule.step()

    def forward() -> None:
        with torch.inference_mode(), cast:
            F.log_softmax(run(images), 1)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    step = train if args.mode == "train" else forward
    for _ in range(2):
        step()
    wait()
    print("ready", flush=True)
    for _ in sys.stdin:
        step()  # the first one after a pause does not count, see steps.py
        wait()
        began = time.perf_counter()
        for _ in range(args.steps):
            step()
        wait()
        print((time.perf_counter() - began) / args.steps, flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    print(json.dumps({"peak_gib": peak / 2**30, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
