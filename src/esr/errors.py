"""The one exception a user's mistake raises. The command line prints it without a traceback and exits with 2."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right.

    The three parts make one message: the rule that does not hold, the value received, and what to do about it.
    """

    def __init__(self, rule: str, got: object = None, remedy: str = "") -> None:
        self.rule, self.got, self.remedy = rule, got, remedy
        parts = [rule.rstrip(".") + "."]
        if got is not None:
            parts.append(f"Got {got!r}." if not isinstance(got, str) else f"Got {got}.")
        if remedy:
            parts.append(remedy.rstrip(".") + ".")
        super().__init__(" ".join(parts))

    def __reduce__(self) -> tuple[type[UserError], tuple[str, object, str]]:
        """As it was made: it may come from another process."""
        return type(self), (self.rule, self.got, self.remedy)


def missing_extra(what: str, extra: str, package: str) -> UserError:
    """What is said when ``what`` (in the plural) need an extra of esr's whose ``package`` is not there."""
    return UserError(f"{what} need the extra `{extra}`", f"no {package}", f"In esr's folder: pip install '.[{extra}]'")


class SteeringError(RuntimeError):
    """Steering did not happen as asked, or broke the model: never a user's typing mistake, always worth a stop."""
