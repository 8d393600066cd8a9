"""The same server, whose garbage collector leaves alone what is there at the start."""

import gc

from deploy_app import app


__all__ = ["app"]

gc.collect()
gc.freeze()
