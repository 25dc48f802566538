"""A page to watch a line, its metrics and its health, over HTTP on this machine's loopback alone.

`WebServer` is fed the very messages of the bus. Standard library only, and neither NumPy nor msgspec: it runs in the
small process that holds the line's sockets. `python -m realtime.web --connect ADDRESS` serves lines that run already.
"""

from realtime.web.server import WebServer
from realtime.web.stats import DEFAULT_ADDRESS, WebStats

__all__ = ["DEFAULT_ADDRESS", "WebServer", "WebStats"]
