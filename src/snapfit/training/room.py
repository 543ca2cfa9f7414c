"""The room on disk that a run will need, counted before it begins."""

from snapfit.training.assemble import Assembly
from snapfit.training.plan import Plan
from snapfit.training.saver import Saver, check_disk
from snapfit.training.trajectory import Trajectory


def check_room(plan: Plan, assembly: Assembly, saver: Saver) -> None:
    """Prove that the disk holds the checkpoints, the members, the averages and the bundle of a training.

    Raises BadInput when it has too little room.
    """
    trained_bytes = sum(tensor.nbytes for tensor in assembly.model.state_dict().values())
    fixed = assembly.fixed()
    with assembly.whole():
        sizes = {name: tensor.nbytes for name, tensor in assembly.model.state_dict().items()}
    model_bytes, fixed_bytes = sum(sizes.values()), sum(n for name, n in sizes.items() if name in fixed)
    remembered = 2 if "betas" in assembly.optimizer.defaults else 1
    best = 1 if "valid" in plan.examples else 0
    averages = Trajectory.of(plan.recipe, assembly).count
    kept = plan.recipe.ensemble.members + averages
    check_disk(
        saver.root,
        (1 + best + averages) * model_bytes + remembered * trained_bytes,
        keep=plan.recipe.checkpoint.keep,
        other_bytes=model_bytes + kept * (model_bytes - fixed_bytes) + (fixed_bytes if kept else 0),
    )
