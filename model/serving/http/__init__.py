"""A request on its way in and an answer on its way out. Knows no network and no supervisor."""
