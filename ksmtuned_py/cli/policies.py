"""The policies as the command line names them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ksmtuned_py.config import Config

POLICIES = ("adaptive", "advisor", "fixed", "ksmtuned", "mom", "kubevirt")
"""The names of the configuration's policies, written out, because its types take 100 ms to load."""
CHOICES = (*POLICIES, "adaptive:quiet", "adaptive:balanced", "adaptive:eager")


def with_policy(config: "Config", choice: str) -> "Config":
    """The configuration with the policy of this choice, which may name a profile after a colon."""
    policy, _, profile = choice.partition(":")
    adaptive = {"profile": profile} if profile else {}
    return config.model_copy(
        update={
            "policy": config.policy.model_copy(update={"name": policy}),
            "adaptive": config.adaptive.model_copy(update=adaptive),
        }
    )
