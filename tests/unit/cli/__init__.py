"""``schedctl``, without a scheduler."""
