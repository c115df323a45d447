"""Do the examples of a data set fit a convolutional network?"""

from __future__ import annotations

from tombola.errors import InputError


def widened(base: int, width: float) -> int:
    """Return a layer's number of channels or units at a width: `base` times that, rounded.

    Raises:
        InputError: none is left.
    """
    found = round(base * width)
    if found < 1:
        raise InputError(f"width={width:g} leaves a layer without channels; give more")
    return found


def image_shape(input_shape: tuple[int, ...], smallest: int = 1) -> tuple[int, int, int]:
    """Return (channels, height, width).

    Args:
        input_shape: of one example.
        smallest: the least height and width that leave a pixel after all pooling.

    Raises:
        InputError: the examples are not images, or smaller than that.
    """
    if len(input_shape) != 3:
        raise InputError(
            f"it takes images (channels, height, width), but an example has shape {tuple(input_shape)}; choose a "
            "fully connected network, or image data"
        )
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise InputError(
            f"images of {height}x{width} are too small: pooling needs at least {smallest}x{smallest}; "
            "choose a network with fewer poolings"
        )
    return channels, height, width
