"""For every test: hypothesis looks for wrong answers, not for slow ones (speed is `make bench`'s affair)."""

from hypothesis import settings

settings.register_profile("sterna", deadline=None)
settings.load_profile("sterna")
