"""Bodies of the REST answers about sign-ups at the aggregator."""

from gateway.domain.programs.sign_ups import SignUpState
from gateway.schemas.body import Body


class SignUpProgressState(Body):
    """How far an authorization at a utility is; `unknown`: words of the aggregator's that are not known here."""

    utility: str
    state: SignUpState
    unknown: list[str]


class CustomerSignUp(Body):
    """How far a customer's sign-up is. `link`: to the aggregator's page, with the reference and nothing else of the
    customer; null = leap.connect is not configured, or the reference may stand in no link. `since`: when anything was
    heard of it first. `required_actions`: what somebody has to do."""

    reference: str
    link: str | None
    state: SignUpState
    since: str | None
    unknown: list[str]
    authorizations: list[SignUpProgressState]
    required_actions: list[str]


class SignUpList(Body):
    """Sign-ups of which something was heard, by reference; `next` is the `after` of the next page, null at the end."""

    sign_ups: list[CustomerSignUp]
    next: str | None
