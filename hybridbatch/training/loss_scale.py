"""The loss scale of fp16, which multiplies gradients that are too small for the format."""

from dataclasses import dataclass

START = 2.0**16
LONGEST = 2000  # number of finite steps after which the scale doubles


@dataclass
class LossScale:
    """A factor on the gradient of the embeddings, removed again from the parameters' gradients.

    It works as in `torch.amp.GradScaler`. A step whose gradients are not finite is skipped, and the
    factor halves. After `LONGEST` finite steps in a row it doubles. The factor is a power of two
    and changes only exponents, so everything that does not overflow is exact.

    Args:
        factor: 1 in formats other than fp16.
        finite_steps: number of finite steps since the factor last changed.
    """

    factor: float = 1.0
    finite_steps: int = 0

    @classmethod
    def of(cls, precision: str) -> "LossScale":
        """The loss scale at the start of a run."""
        return cls(START if precision == "fp16" else 1.0)

    def overflowed(self) -> bool:
        """Halve the factor after gradients that are not finite.

        Returns: False if the scale is not the cause.
        """
        if self.factor <= 1.0:
            return False
        self.factor /= 2
        self.finite_steps = 0
        return True

    def stepped(self, precision: str) -> None:
        """Count a step with finite gradients."""
        if precision != "fp16":
            return
        self.finite_steps += 1
        if self.finite_steps == LONGEST:
            self.factor *= 2
            self.finite_steps = 0
