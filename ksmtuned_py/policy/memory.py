"""What a policy remembers from tick to tick, beside what the trend knows for all of them. Pure."""

from typing import TypeAlias, TypeVar, assert_never

from ksmtuned_py.config import Config
from ksmtuned_py.model import Snapshot
from ksmtuned_py.policy.advisorstate import AdvisorState
from ksmtuned_py.policy.ksmtuned import KsmtunedState
from ksmtuned_py.policy.kubevirt import KubevirtState
from ksmtuned_py.policy.mom import MomState

Memory: TypeAlias = AdvisorState | KsmtunedState | MomState | KubevirtState | None
T = TypeVar("T")


def remembered(past: Memory, now: Snapshot, config: Config) -> Memory:
    """The memory of the policy that the config names, with one more snapshot; that of another policy is forgotten."""
    match config.policy.name:
        case "adaptive" | "fixed":
            return None
        case "advisor":
            return _of(AdvisorState, past).after(now)
        case "ksmtuned":
            return _of(KsmtunedState, past).after(now, config.ksmtuned)
        case "mom":
            return _of(MomState, past).after(now, config.mom)
        case "kubevirt":
            return _of(KubevirtState, past).after(now, config.kubevirt)
        case never:
            assert_never(never)


def _of(kind: type[T], past: object) -> T:
    return past if isinstance(past, kind) else kind()
