"""The one family of exceptions that a user can cause.

Each message is one line: the value that is wrong, then what to do about it.
The command prints it and exits with 1; nothing else in the library catches it.
"""


class AlexNetError(Exception):
    """Report a mistake that the user can mend; the message says how.

    Attributes:
        everywhere: whether every process of the run raises it, so that they end
            together; else the others have to be left at once.
    """

    everywhere: bool = False


class ConfigError(AlexNetError):
    """Report a recipe, option or combination of them that cannot run."""


class DataError(AlexNetError):
    """Report data that is missing, damaged or of another shape than expected."""


class ImageError(DataError):
    """Report one image that cannot be decoded; the others are not affected."""


class CheckpointError(AlexNetError):
    """Report a checkpoint or run directory that is missing, damaged or in use."""


class TrainingError(AlexNetError):
    """Report a run that cannot go on, such as one whose loss is not finite."""

    everywhere = True  # the numbers are the same on all


class WeightsError(AlexNetError):
    """Report a file of weights that cannot be read, or does not fit a network."""
