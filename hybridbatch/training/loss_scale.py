"""The loss scale of fp16: gradients too small for the format are carried as multiples of it."""

from dataclasses import dataclass

START = 2.0**16
LONGEST = 2000  # finite steps after which the scale doubles


@dataclass
class LossScale:
    """A factor on the gradient of the embeddings, taken off the parameters' gradients again.

    As `torch.amp.GradScaler`: it halves after a step whose gradients were not finite, which is
    skipped, and doubles after `LONGEST` finite steps in a row. Of powers of two only the exponent
    changes, so what does not overflow is exact.

    Args:
        factor: 1 in other formats than fp16.
        finite_steps: since the last change.
    """

    factor: float = 1.0
    finite_steps: int = 0

    @classmethod
    def of(cls, precision: str) -> "LossScale":
        """To start with."""
        return cls(START if precision == "fp16" else 1.0)

    def overflowed(self) -> bool:
        """After gradients that are not finite: halve. False: the scale is not to blame."""
        if self.factor <= 1.0:
            return False
        self.factor /= 2
        self.finite_steps = 0
        return True

    def stepped(self, precision: str) -> None:
        """After a step with finite gradients."""
        if precision != "fp16":
            return
        self.finite_steps += 1
        if self.finite_steps == LONGEST:
            self.factor *= 2
            self.finite_steps = 0
