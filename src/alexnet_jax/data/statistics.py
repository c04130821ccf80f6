"""The mean image and the colour covariance of a training set (paper sections 2, 4.1).

Sums are whole numbers, so they are exact and the same in whatever order, on however
many threads, they were taken.
"""

import threading

import numpy as np

from alexnet_jax.config import Resize
from alexnet_jax.data.memory import decode_record, in_threads
from alexnet_jax.data.records import Source, Statistics
from alexnet_jax.errors import DataError

# A source of at most MAX_EXACT images is counted whole. Of a larger one that many
# evenly spaced images are read: 20,000 estimate the mean of a pixel to within about
# half a level of 255 (a pixel's standard deviation, about 70, over the square root of
# their number). A prepared store carries the exact values.
MAX_EXACT = 50_000
SAMPLE = 20_000


class Accumulator:
    """Sums over images from which their `Statistics` follow.

    Attributes:
        sums: ``u64[S, S, C]``, the sum of each pixel.
        moments: ``u64[C, C]``, the sum over all pixels of the products of channels.
        images: how many images were added.
    """

    def __init__(self, image_size: int, channels: int):
        """Start at zero for images ``u8[image_size, image_size, channels]``."""
        self.sums = np.zeros((image_size, image_size, channels), np.uint64)
        self.moments = np.zeros((channels, channels), np.uint64)
        self.images = 0

    def add(self, image: np.ndarray) -> None:
        """Add one image.

        Args:
            image: ``u8[S, S, C]``.
        """
        self.sums += image
        # float64 holds whole numbers to 2**53: exact for images of up to 10**11 pixels,
        # and a matrix product is far faster in floats.
        planes = image.reshape(-1, image.shape[-1]).T.astype(np.float64, order="C")
        # Pair by pair: a product of matrices three numbers wide takes twice as long.
        products = np.array([[one @ other for other in planes] for one in planes])
        self.moments += products.astype(np.uint64)
        self.images += 1

    def merge(self, other: "Accumulator") -> None:
        """Add what another accumulator has counted."""
        self.sums += other.sums
        self.moments += other.moments
        self.images += other.images

    def to_bytes(self) -> bytes:
        """Write the sums down, for another process."""
        parts = np.uint64(self.images), self.sums, self.moments
        return b"".join(np.asarray(part, "<u8").tobytes() for part in parts)

    @classmethod
    def from_bytes(cls, data: bytes, image_size: int, channels: int) -> "Accumulator":
        """Read what `to_bytes` has written."""
        read = cls(image_size, channels)
        numbers = np.frombuffer(data, "<u8")
        read.images = int(numbers[0])
        read.sums[:] = numbers[1 : 1 + read.sums.size].reshape(read.sums.shape)
        read.moments[:] = numbers[1 + read.sums.size :].reshape(read.moments.shape)
        return read

    def statistics(self) -> Statistics:
        """Divide.

        Returns:
            The mean image and the population covariance of the channels.

        Raises:
            DataError: nothing was added.
        """
        if not self.images:
            raise DataError("there is no image to take the mean of")
        channels = len(self.moments)
        pixels = self.images * self.sums.shape[0] * self.sums.shape[1]
        totals = [int(total) for total in self.sums.sum((0, 1))]
        # Python's whole numbers: the difference of two huge products stays exact.
        covariance = [
            [
                (pixels * int(self.moments[i, j]) - totals[i] * totals[j]) / pixels**2
                for j in range(channels)
            ]
            for i in range(channels)
        ]
        return Statistics(
            mean=(self.sums / self.images).astype(np.float32),
            covariance=np.array(covariance, np.float64),
            images=self.images,
        )


def compute(
    source: Source,
    image_size: int,
    channels: int,
    resize: Resize = "crop",
    threads: int | None = None,
) -> Statistics:
    """Measure a training split.

    Args:
        source: the split; of more than `MAX_EXACT` images, `SAMPLE` evenly spaced
            ones are read.
        image_size: side of the pictures in pixels.
        channels: 1 or 3.
        resize: see `decode`.
        threads: that decode; as many as the process has cores when None.

    Returns:
        Its statistics, the same for any number of threads.

    Raises:
        DataError: the split is empty.
        ImageError: a picture cannot be decoded; the message starts with its id.
    """
    whole = measure_part(source, image_size, channels, resize, threads=threads)
    return whole.statistics()


def measure_part(
    source: Source,
    image_size: int,
    channels: int,
    resize: Resize = "crop",
    *,
    part: int = 0,
    parts: int = 1,
    threads: int | None = None,
) -> Accumulator:
    """Count every `parts`-th image that `compute` would, from the `part`-th on.

    The sums of all parts, merged, are those of the whole.
    """
    everything = len(source) if len(source) <= MAX_EXACT else SAMPLE
    places = [i * len(source) // everything for i in range(part, everything, parts)]
    total = Accumulator(image_size, channels)
    lock = threading.Lock()

    def measure(positions: range) -> None:
        counted = Accumulator(image_size, channels)
        for position in positions:
            record = source[places[position]]
            counted.add(decode_record(record, image_size, channels, resize))
        with lock:
            total.merge(counted)

    in_threads(measure, len(places), threads)
    return total
