"""The length policy: what is read of a text that is longer than the limit. Plain data; `data/cutting.py` does it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NoReturn, get_args

from snapfit.core.errors import BadInput

Policy = Literal["head", "tail", "head+tail", "windows"]
WindowPooling = Literal["mean", "max", "attention", "max_states"]

_USED: dict[str, tuple[str, ...]] = {
    "head": (),
    "tail": (),
    "head+tail": ("head_share",),
    "windows": ("overlap", "max_windows", "window_pooling"),
}
"""The fields that a policy goes by."""


@dataclass(frozen=True)
class LengthPolicy:
    """What is read of a text that is longer than it may be. A text that fits is always read whole.

    policy: head       the first tokens
            tail       the last tokens
            head+tail  the first and the last tokens, as one text (Sun et al. 2019, section 5.3.1)
            windows    stretches of the whole text, each read as a text of its own; see `cutting.py` for where they are
    head_share: of the tokens that are read, how many are the first ones (head+tail); above 0 and below 1.
    overlap: of a window's tokens, how many the one before it has too, at least (windows); from 0, below 1.
    max_windows: of a text at most; of a longer one they are spread evenly, and what lies between is not read.
    window_pooling: how a text's windows become one answer, see `core/windows.py`.
    Raises BadInput for a value that cannot be.
    """

    policy: Policy = "head"
    head_share: float = 0.25
    overlap: float = 0.25
    max_windows: int = 8
    window_pooling: WindowPooling = "mean"

    def __post_init__(self) -> None:
        if self.policy not in _USED:
            self._refuse("policy", f"one of {', '.join(_USED)}")
        for name, least in (("head_share", 1e-9), ("overlap", 0.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < 1:
                self._refuse(name, f"a number {'above' if least else 'from'} 0{'' if least else ' on'}, below 1")
        if type(self.max_windows) is not int or self.max_windows < 1:
            self._refuse("max_windows", "an integer of at least 1")
        if self.window_pooling not in get_args(WindowPooling):
            self._refuse("window_pooling", f"one of {', '.join(get_args(WindowPooling))}")

    def _refuse(self, name: str, expected: str) -> NoReturn:
        raise BadInput(f"length.{name} is {getattr(self, name)!r}", expected, "correct the length policy")

    @property
    def windowed(self) -> bool:
        """Whether a text may be several sequences."""
        return self.policy == "windows"

    @property
    def cuts_at_one_end(self) -> bool:
        """Whether tokenizers can cut so by themselves, as transformers' do by `truncation_side`."""
        return self.policy in ("head", "tail")

    @property
    def pools_windows_by(self) -> WindowPooling | None:
        """How windows become one answer; None where a text is one sequence."""
        return self.window_pooling if self.windowed else None

    def to_dict(self) -> dict[str, Any]:
        """The policy and what it goes by, as plain values."""
        values = asdict(self)
        return {"policy": self.policy, **{name: values[name] for name in _USED[self.policy]}}

    @classmethod
    def from_dict(cls, values: Any) -> "LengthPolicy":
        """What `to_dict` gave. Raises BadInput for anything else."""
        policy = values.get("policy") if isinstance(values, Mapping) else None
        if not isinstance(policy, str) or policy not in _USED or set(values) != {"policy", *_USED[policy]}:
            expected = "; ".join(f"{name}{' with ' if used else ''}{', '.join(used)}" for name, used in _USED.items())
            raise BadInput(f"the length policy {values!r}", expected, "restore it from where it was made")
        return cls(**values)

    def cuts_by(self) -> dict[str, Any]:
        """What decides which tokens are read."""
        return {name: value for name, value in self.to_dict().items() if name != "window_pooling"}

    def in_words(self, max_tokens: int) -> str:
        """What happens to a text of more than so many tokens, special tokens included."""
        limit = f"{max_tokens:,} tokens"
        if self.policy == "head":
            return f"of longer texts the first {limit} are read"
        if self.policy == "tail":
            return f"of longer texts the last {limit} are read"
        if self.policy == "head+tail":
            return f"of longer texts {limit} are read, {self.head_share:.0%} from the beginning, the rest from the end"
        return (
            f"longer texts are read in up to {self.max_windows:,} windows of {limit}, which overlap by "
            f"{self.overlap:.0%} or more; the answer is {_POOLED[self.window_pooling]}"
        )


_POOLED: dict[str, str] = {
    "mean": "the mean of their logits",
    "max": "the largest of their logits for each label",
    "attention": "a mean of their logits, weighted by a learnt score of each",
    "max_states": "that of the largest values among their states",
}

HEAD = LengthPolicy()
"""What is done where nothing else is said."""
