"""How long reading one item may take."""

ITEM_SECONDS = 600.0  # where the user does not say


def overdue_reason(seconds: float) -> str:
    """Say why an item failed that takes longer to read than `seconds`."""
    return f"not read within {seconds:g} s; --item-timeout allows more"
