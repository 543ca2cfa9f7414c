"""The room on disk that a run will need, counted before it begins."""

from dataclasses import dataclass

from snapfit.training.assemble import Assembly
from snapfit.training.plan import Plan
from snapfit.training.saver import Saver, check_disk
from snapfit.training.trajectory import Trajectory


@dataclass(frozen=True)
class Room:
    """Bytes that a run takes.

    checkpoint: of one checkpoint, of which `keep` and one more are there at a time. other: of the bundle, the members
    and the averages. model: of the model's weights. held: in memory, of the copies of weights and optimizer that a
    checkpoint is written from, and of the best weights.
    """

    checkpoint: int
    keep: int
    other: int
    model: int
    held: int

    @property
    def needed(self) -> int:
        """All bytes on disk at the most."""
        return (self.keep + 1) * self.checkpoint + self.other


def room_needed(plan: Plan, assembly: Assembly) -> Room:
    """What the run of a plan will need."""
    trained_bytes = sum(tensor.nbytes for tensor in assembly.model.state_dict().values())
    fixed = assembly.fixed()
    with assembly.whole():
        sizes = {name: tensor.nbytes for name, tensor in assembly.model.state_dict().items()}
    model_bytes, fixed_bytes = sum(sizes.values()), sum(n for name, n in sizes.items() if name in fixed)
    remembered = 2 if "betas" in assembly.optimizer.defaults else 1
    best = 1 if "valid" in plan.examples else 0
    averages = Trajectory.of(plan.recipe, assembly).count
    kept = plan.recipe.ensemble.members + averages
    return Room(
        checkpoint=(1 + best + averages) * model_bytes + remembered * trained_bytes,
        keep=plan.recipe.checkpoint.keep,
        other=model_bytes + kept * (model_bytes - fixed_bytes) + (fixed_bytes if kept else 0),
        model=model_bytes,
        held=trained_bytes + remembered * trained_bytes + best * model_bytes,
    )


def check_room(plan: Plan, assembly: Assembly, saver: Saver) -> None:
    """Prove that the disk holds the checkpoints, the members, the averages and the bundle of a training.

    Raises BadInput when it has too little room.
    """
    room = room_needed(plan, assembly)
    check_disk(saver.root, room.checkpoint, keep=room.keep, other_bytes=room.other)
