"""The time limit for reading one item."""

ITEM_SECONDS = 600.0  # the default


def overdue_reason(seconds: float) -> str:
    """Return the reason of failure for an item that takes longer than `seconds` to read."""
    return f"not read within {seconds:g} s; --item-timeout allows more"
