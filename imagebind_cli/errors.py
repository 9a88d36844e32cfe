"""The one exception whose message is meant for the person at the terminal."""


class UserError(Exception):
    """A request that cannot be carried out, with a reason the user can act on.

    `main()` prints it as one line on stderr and exits 1. Raise it for a bad request (a model, a store, a whole
    command); a single bad input file raises `OSError` or `ValueError` in its reader instead and the run goes on.
    """
